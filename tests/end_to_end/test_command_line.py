"""The command line on the two real models."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from curated_transformers import cli
from curated_transformers.generation import (
    AsyncTextGenerator,
    AutoGenerator,
    GreedyGeneratorConfig,
)
from curated_transformers.tokenizers import AutoTokenizer

pytestmark = pytest.mark.real_model
GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "real_models.npz")
QUESTION = "What is the capital of France?"


@pytest.fixture
def run(capsys, monkeypatch):
    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert cli.main([str(argument) for argument in arguments]) == 0
        out, errors = capsys.readouterr()
        assert errors == ""
        return out

    return run


def test_texts_are_those_of_transformers(run, smollm2):
    tokenizer = AutoTokenizer.from_path(smollm2)
    end = tokenizer.piece_to_id(tokenizer.eos_piece)
    for number, prompt in enumerate(GOLDEN["prompts"].tolist()):
        pieces = GOLDEN[f"blocks_generated_{number}"].tolist()
        (expected,) = tokenizer.decode([pieces[: [*pieces, end].index(end)]])
        assert run("generate", smollm2, prompt, "-n", 64) == expected + "\n"


def test_a_chat_is_the_generators(run, smollm2):
    generator = AutoGenerator.from_path(smollm2)
    config = GreedyGeneratorConfig(max_generated_pieces=24)
    messages = [{"role": "user", "content": QUESTION}]
    first = generator.chat(messages, config)
    assert "Paris" in first
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And Spain?"}]
    expected = f"{first}\n{generator.chat(messages, config)}\n"
    assert run("chat", smollm2, "-n", 24, stdin=f"{QUESTION}\nAnd Spain?\n") == expected


def test_requests_together_are_those_alone(smollm2):
    generator = AutoGenerator.from_path(smollm2)
    config = GreedyGeneratorConfig(max_generated_pieces=16)
    prompts = [*GOLDEN["prompts"].tolist(), [{"role": "user", "content": QUESTION}]]

    async def use():
        async with AsyncTextGenerator(generator) as texts:
            return await asyncio.gather(*(texts.generate(prompt, config) for prompt in prompts))

    expected = ["".join(generator.stream(prompt, config)) for prompt in prompts]
    assert asyncio.run(use()) == expected


def test_info_knows_the_published_numbers(run, smollm2, minilm):
    # https://huggingface.co/HuggingFaceTB/SmolLM2-135M, .../sentence-transformers/all-MiniLM-L6-v2
    out = run("info", smollm2)
    assert "supported     yes\n" in out
    assert "30 layers, width 576, 9 heads (3 of keys and values), 49152 pieces" in out
    assert "parameters    134,515,008\n" in out
    out = run("info", minilm)
    assert "supported     yes\n" in out
    assert "F32: 22,713,216 in" in out


def test_similar_sentences_are_similar(run, minilm):
    sentences = GOLDEN["sentences"].tolist()
    lines = run("encode", minilm, *sentences).splitlines()
    n = len(sentences)
    printed = [[float(value) for value in line.split()[1 : 1 + n]] for line in lines]
    expected = GOLDEN["embeddings"] @ GOLDEN["embeddings"].T
    np.testing.assert_allclose(printed, expected, atol=0.00501)  # two digits

"""The two real models against transformers, live: every layer, every piece (`make oracle`)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")

from models.comparison import distance, results
from oracles import real_models

from curated_transformers.generation import Generator, GreedyGeneratorConfig
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM

pytestmark = [pytest.mark.slow, pytest.mark.real_model]
# Two orders of summation in f32, after 30 layers: up to 3e-5 at the piece where most cancels.
# Weights rounded to f16 instead move states by 5e-4.
LIMIT = 1e-4


@pytest.fixture(scope="module")
def prompts():
    tokenizer = real_models.smollm2_tokenizer()
    return [np.array(tokenizer.encode(prompt).ids) for prompt in real_models.PROMPTS]


class SmolLM2:
    """Ours and transformers', with the same weights."""

    def __init__(self, kind, path):
        self.ours = LlamaCausalLM.from_path(path)
        self.reference = real_models.smollm2(kind)


@pytest.fixture(scope="module", params=real_models.KINDS)
def pair(request, smollm2, smollm2_checkpoint):
    """The GGUF file computed on its blocks, and the f16 checkpoint computed in f32."""
    return SmolLM2(request.param, {"blocks": smollm2, "f16": smollm2_checkpoint}[request.param])


def test_hidden_states_of_all_layers(pair, prompts):
    long = np.concatenate(prompts * 6)  # 276 pieces
    for ids in (*prompts, long):
        hidden, logits = results(pair.ours(ids[None]))
        expected_hidden, expected_logits = real_models.hidden_states(pair.reference, ids)
        for ours, expected in zip(hidden[:, 0], expected_hidden, strict=True):
            assert distance(ours, expected) < LIMIT
        assert distance(logits[0], expected_logits) < LIMIT


def test_greedy_pieces_of_all_prompts_together(pair, prompts):
    config = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=real_models.N_PIECES)
    session = Generator(pair.ours).start(prompts, config, eos_ids=())
    rows = [[] for _ in prompts]
    while not session.is_done:
        for number, piece, _ in session.run(1):
            if piece >= 0:
                rows[number].append(piece)
    assert rows == [real_models.greedy(pair.reference, ids).tolist() for ids in prompts]


def test_minilm_by_its_recipe(minilm):
    inputs = real_models.minilm_inputs()
    expected_hidden, expected = real_models.minilm_states(inputs)
    mask = inputs["attention_mask"].numpy().astype(bool)
    ids, types = inputs["input_ids"].numpy(), inputs["token_type_ids"].numpy()
    hidden, _ = results(BERTEncoder.from_path(minilm)(ids, mask, type_ids=types))
    for ours, theirs in zip(hidden, expected_hidden, strict=True):
        assert distance(ours[mask], theirs[mask]) < LIMIT
    mean = hidden[-1].sum(1) / mask.sum(1, keepdims=True)  # zeros at padding
    embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)

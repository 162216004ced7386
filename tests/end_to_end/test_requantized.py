"""SmolLM2 in mixes of block formats as published files have them, against transformers, which reads
the same files by itself."""

from __future__ import annotations

import numpy as np
import pytest
from models.comparison import distance, results

from curated_transformers.generation import AutoGenerator, GreedyGeneratorConfig
from curated_transformers.models import AutoCausalLM
from curated_transformers.tokenizers import AutoTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.real_model]
TEXT = "The capital of France is Paris, and the capital of Italy is"
#: Of pieces and values, of what leads out of the feed-forward layers (two formats in turn), and of
#: everything else. Rows of 576 values are no whole blocks of 256; these are what takes their place.
RECIPES = {
    "Q4_K_M": ("Q8_0", ("Q6_K", "Q4_K"), "Q5_0"),
    "Q5_K_M": ("Q8_0", ("Q6_K", "Q5_K"), "Q5_1"),
    "Q4_1 and Q5_K": ("Q5_1", ("Q5_K", "Q4_1"), "Q4_1"),
}
# As in test_real_models_live.py: two orders of summation, after 30 layers.
LIMIT = 1e-4


@pytest.fixture(scope="module", params=RECIPES)
def folder(request, smollm2, tmp_path_factory):
    from oracles.smollm2 import write_requantized

    pieces_and_values, down, others = RECIPES[request.param]

    def recipe(name):
        if "token_embd" in name or "attn_v" in name:
            return pieces_and_values
        return down[int(name.split(".")[1]) % 2] if "ffn_down" in name else others

    folder = tmp_path_factory.mktemp("requantized")
    write_requantized(folder / "model.gguf", recipe)
    yield folder
    (folder / "model.gguf").unlink()


def test_states_and_logits_are_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate", reason="transformers needs it for these files")
    from oracles.random_models import run

    reference = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype="float32"
    ).eval()
    tokenizer = AutoTokenizer.from_path(folder / "model.gguf")
    ids = np.array(tokenizer([TEXT]).ids)
    hidden, logits = results(AutoCausalLM.from_path(folder / "model.gguf")(ids))
    expected_hidden, expected_logits = run(reference, ids)
    for ours, expected in zip(hidden, expected_hidden, strict=True):
        assert distance(ours, expected) < LIMIT
    assert distance(logits, expected_logits) < LIMIT


def test_the_text_makes_sense(folder):
    generator = AutoGenerator.from_path(folder / "model.gguf")
    config = GreedyGeneratorConfig(max_generated_pieces=24, eos_id=-1)
    (answer,) = generator(["The capital of France is"], config=config)
    assert "Paris" in answer

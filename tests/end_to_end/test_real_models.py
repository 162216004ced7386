"""The two real models against what transformers computes (tests/oracles/real_models.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models.comparison import distance

from curated_transformers.checkpoint import GGUFFile
from curated_transformers.generation import (
    AutoGenerator,
    Generator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.tokenizers import AutoTokenizer

pytestmark = pytest.mark.real_model
GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "real_models.npz")
N_PROMPTS = len(GOLDEN["prompts"])


@pytest.fixture(scope="module")
def model(smollm2):
    return LlamaCausalLM.from_path(smollm2)


@pytest.fixture(scope="module")
def generator(smollm2):
    return AutoGenerator.from_path(smollm2)


@pytest.fixture(scope="module")
def encoder(minilm):
    return BERTEncoder.from_path(minilm)


def worst_distance(model, kind):
    """Of the stored states of the last piece of each prompt, relative."""
    worst = 0.0
    for number in range(N_PROMPTS):
        output = model(GOLDEN[f"ids_{number}"][None])
        states = [output.all_outputs[i] for i in GOLDEN["states"]]
        hidden = np.stack([np.asarray(state)[0, -1] for state in states])
        worst = max(worst, distance(hidden, GOLDEN[f"{kind}_hidden_{number}"]))
    return worst


def greedy_pieces(model, n_pieces):
    config = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=n_pieces)
    prompts = [GOLDEN[f"ids_{number}"] for number in range(N_PROMPTS)]
    session = Generator(model).start(prompts, config, eos_ids=())
    rows = [[] for _ in prompts]
    while not session.is_done:
        for number, piece, _ in session.run(1):
            rows[number].append(piece)
    return [[piece for piece in row if piece >= 0] for row in rows]


# Two orders of summation in f32 are 3e-6 apart here. Rounding the weights to f16 moves the states
# by 5e-4, so that neither of the two models would pass for the other.
LIMIT = 1e-4


def test_hidden_states_of_the_blocks_as_they_are(model):
    assert worst_distance(model, "blocks") < LIMIT


def test_a_float16_checkpoint_computed_in_float32(smollm2_checkpoint):
    """Hidden states, and the greedy pieces of all prompts together."""
    model = LlamaCausalLM.from_path(smollm2_checkpoint)
    assert model.dtype == "float32"
    assert worst_distance(model, "f16") < LIMIT
    assert greedy_pieces(model, 16) == [
        GOLDEN[f"f16_generated_{number}"][:16].tolist() for number in range(N_PROMPTS)
    ]


def test_in_bfloat16_blocks_give_the_greedy_pieces_of_float32(smollm2):
    """Few rows may be multiplied as whole numbers of 16 bits then (docs/quantization.md)."""
    model = LlamaCausalLM.from_path(smollm2, dtype="bfloat16")
    assert greedy_pieces(model, 12) == [
        GOLDEN[f"blocks_generated_{number}"][:12].tolist() for number in range(N_PROMPTS)
    ]


def test_a_gguf_file_is_read_once_for_model_and_tokenizer(smollm2, monkeypatch):
    opened = []
    read = GGUFFile.__init__

    def counted(self, *arguments, **options):
        opened.append(self)
        read(self, *arguments, **options)

    monkeypatch.setattr(GGUFFile, "__init__", counted)
    generator = AutoGenerator.from_path(smollm2)
    assert opened == [generator.generator.inner.model.checkpoint]


def test_greedy_texts_are_those_of_transformers(generator, smollm2):
    config = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=64)
    pieces = [GOLDEN[f"blocks_generated_{number}"].tolist() for number in range(N_PROMPTS)]
    expected = AutoTokenizer.from_path(smollm2).decode(pieces)
    assert generator(GOLDEN["prompts"].tolist(), config=config) == expected


def test_tokenizer_gives_the_golden_ids(smollm2):
    ids = AutoTokenizer.from_path(smollm2)(GOLDEN["prompts"].tolist()).ids
    assert ids == [GOLDEN[f"ids_{number}"].tolist() for number in range(N_PROMPTS)]


def test_a_stream_is_the_whole_text_in_pieces(generator):
    config = GreedyGeneratorConfig(max_generated_pieces=20)
    prompt = "The capital of France is"
    assert "".join(generator.stream(prompt, config)) == generator([prompt], config=config)[0]


def test_the_same_seed_gives_the_same_text(generator):
    config = SampleGeneratorConfig(temperature=1.0, top_k=20, max_generated_pieces=12, seed=3)
    prompts = ["Once upon a time", "Dear"]
    assert generator(prompts, config=config) == generator(prompts, config=config)


def test_cached_pieces_give_the_same_logits(model):
    ids = GOLDEN["ids_2"][None]
    whole = np.asarray(model(ids).logits)
    first = model(ids[:, :-3], store_cache=True)
    rest = model(ids[:, -3:], np.ones_like(ids, dtype=bool), cache=first.cache)
    np.testing.assert_allclose(np.asarray(rest.logits)[0], whole[0, -3:], rtol=1e-4, atol=1e-3)


def test_minilm_embeds_as_its_recipe_says(encoder, minilm):
    pieces = AutoTokenizer.from_path(minilm)(GOLDEN["sentences"].tolist())
    mask = pieces.attention_mask()
    hidden = np.asarray(encoder(pieces.padded_tensor(), mask).last_hidden_layer_state)
    real = np.asarray(mask.bool_mask)[:, 0, 0, :, None]
    mean = (hidden * real).sum(1) / real.sum(1)
    embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, GOLDEN["embeddings"], atol=1e-5)
    vectors = encoder.encode(GOLDEN["sentences"].tolist())
    np.testing.assert_allclose(vectors, GOLDEN["embeddings"], atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_padding_does_not_change_real_tokens(encoder, left):
    ids = GOLDEN["sentence_ids"]
    short = ids[0][ids[0] != 0]
    n_padding = 5
    padding = np.zeros(n_padding, dtype=np.int64)
    padded = np.concatenate([padding, short] if left else [short, padding])
    positions = np.arange(len(short))
    spread = np.concatenate([padding, positions] if left else [positions, padding])
    alone = np.asarray(encoder(short[None]).last_hidden_layer_state)[0]
    output = encoder(padded[None], (padded != 0)[None], positions=spread[None])
    state = np.asarray(output.last_hidden_layer_state)[0]
    np.testing.assert_allclose(state[padded != 0], alone, rtol=1e-4, atol=1e-5)
    assert not state[padded == 0].any()


def test_an_id_outside_the_vocabulary_is_an_index_error(encoder):
    with pytest.raises(IndexError, match=r"piece id 99999 at \[0, 1\]"):
        encoder([[101, 99999]])


def test_a_mask_of_another_shape_is_a_value_error(encoder):
    with pytest.raises(ValueError, match="must cover"):
        encoder([[101, 102]], np.ones((1, 5), dtype=bool))


def test_a_sequence_longer_than_the_positions_is_refused(encoder):
    with pytest.raises((IndexError, ValueError), match="positions of the model"):
        encoder(np.full((1, 513), 101))

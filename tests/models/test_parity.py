"""Every variant of every architecture against transformers, live (`make oracle`).

The checkpoints are those that transformers itself saves.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")

import torch
from checkpoint_writers import write_safetensors
from models.comparison import LIMIT, assert_close, distance, load, results, write_config
from models.variants import (
    LENGTHS,
    SAME_MEANING,
    VARIANTS,
    own_positions,
    piece_ids,
    ragged_batch,
    random_weights,
    stored_name,
)
from oracles.random_models import build, generate, model_class, run, run_alone

from curated_transformers.generation import Generator, GreedyGeneratorConfig
from curated_transformers.models import AutoDecoder

pytestmark = pytest.mark.slow
N_GENERATED = 64


class Pair:
    """A variant in transformers, its saved checkpoint, and ours of that checkpoint."""

    def __init__(self, variant, folder):
        self.variant = variant
        self.folder = folder
        self.reference = build(variant)
        self.reference.save_pretrained(folder)
        if not variant.as_saved:  # what transformers reads but does not save
            parameters = dict(self.reference.named_parameters())
            names = {name: stored_name(variant, name) for name in parameters}
            weights = {
                stored: random_weights(stored, tuple(parameters[name].shape))
                for name, stored in names.items()
            }
            write_safetensors(folder / "model.safetensors", weights)
        self.model = load(variant, folder)

    def masked(self, output, mask):
        """Our results at real tokens; zeros are asked for elsewhere."""
        hidden, logits = results(output)
        assert not hidden[:, ~mask].any()
        return hidden[:, mask], None if logits is None else logits[mask]


def at(expected, mask):
    hidden, logits = expected
    return hidden[:, mask], None if logits is None else logits[mask]


def parametrize(variants):
    return pytest.mark.parametrize("pair", variants, ids=str, indirect=True)


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    return Pair(request.param, tmp_path_factory.mktemp(request.param.architecture))


ALL = parametrize(VARIANTS)
DECODERS = parametrize([variant for variant in VARIANTS if variant.is_decoder])
ENCODERS = parametrize([variant for variant in VARIANTS if not variant.is_decoder])
TYPED = parametrize([variant for variant in VARIANTS if "type_vocab_size" in variant.config])


@ALL
def test_one_sequence_of_each_length(pair):
    for length in LENGTHS:
        ids = piece_ids(length, 1, length)
        assert_close(results(pair.model(ids)), run(pair.reference, ids))


@ALL
def test_a_batch_padded_right(pair):
    ids, mask = ragged_batch(left=False)
    expected = run(pair.reference, ids, mask)
    assert_close(pair.masked(pair.model(ids, mask), mask), at(expected, mask))


@DECODERS
def test_a_batch_padded_left_is_as_if_it_had_no_padding(pair):
    ids, mask = ragged_batch(left=True)
    expected = at(run_alone(pair.reference, ids, mask), mask)
    assert_close(pair.masked(pair.model(ids, mask), mask), expected)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    output = pair.model(ids, mask, positions=positions)
    assert_close(pair.masked(output, mask), expected)


@ENCODERS
def test_a_batch_padded_left_has_the_positions_of_its_columns(pair):
    ids, mask = ragged_batch(left=True)
    expected = run(pair.reference, ids, mask)
    assert_close(pair.masked(pair.model(ids, mask), mask), at(expected, mask))


@ENCODERS
def test_positions_that_are_given_undo_left_padding(pair):
    ids, mask = ragged_batch(left=True)
    positions = own_positions(pair.variant, ids, mask)
    expected = run_alone(pair.reference, ids, mask)
    output = pair.model(ids, mask, positions=positions)
    assert_close(pair.masked(output, mask), at(expected, mask))


@ALL
def test_a_mask_with_holes_leaves_positions_to_the_columns(pair):
    ids = piece_ids(8, 2, 90)
    mask = np.random.RandomState(8).random_sample(ids.shape) < 0.7
    mask[:, 0] = True
    expected = run(pair.reference, ids, mask)
    output = pair.model(ids, mask)
    ours = at(results(output), mask) if pair.variant.has_distances else pair.masked(output, mask)
    assert_close(ours, at(expected, mask))


@ALL
def test_a_mask_for_each_pair_of_pieces(pair):
    ids = piece_ids(8, 2, 90)
    mask = np.random.RandomState(8).random_sample((2, 1, 90, 90)) < 0.5
    mask |= np.eye(90, dtype=bool)
    # transformers takes such a mask as it is, and ours is one more condition beside causality and
    # windows.
    seen = np.tril(mask) if pair.variant.is_decoder else mask
    assert_close(results(pair.model(ids, mask)), run(pair.reference, ids, seen))


@TYPED
def test_types_of_pieces(pair):
    ids = piece_ids(5, 2, 70)
    types = piece_ids(6, 2, 70) % pair.variant.config["type_vocab_size"]
    expected = run(pair.reference, ids, types=types)
    assert_close(results(pair.model(ids, type_ids=types)), expected)


@DECODERS
@pytest.mark.parametrize("steps", [(1, 1, 2, 1), (40, 1, 23, 1, 60)])
def test_steps_with_the_cache_are_the_whole(pair, steps):
    """Ragged prompts, padded left; then some pieces at a time."""
    prompts, prompt_mask = ragged_batch(left=True)
    new = piece_ids(9, len(prompts), sum(steps))
    ids = np.concatenate([prompts, new], axis=1)
    mask = np.concatenate([prompt_mask, np.ones(new.shape, dtype=bool)], axis=1)
    expected_hidden, expected_logits = run_alone(pair.reference, ids, mask)
    start, cache = 0, None
    for end in np.cumsum([prompts.shape[1], *steps]):
        output = pair.model(ids[:, start:end], mask[:, :end], cache=cache, store_cache=True)
        ours = pair.masked(output, mask[:, start:end])
        expected = expected_hidden[:, :, start:end], expected_logits[:, start:end]
        assert_close(ours, at(expected, mask[:, start:end]))
        start, cache = int(end), output.cache


@DECODERS
def test_the_decoder_alone_gives_the_same_states(pair):
    ids, mask = ragged_batch(left=False)
    decoder = AutoDecoder.from_path(pair.folder)
    hidden, _ = results(decoder(ids, mask))
    np.testing.assert_array_equal(hidden, results(pair.model(ids, mask))[0])


@DECODERS
def test_a_checkpoint_without_a_head(pair, tmp_path):
    pair.reference.base_model.save_pretrained(tmp_path)
    decoder = AutoDecoder.from_path(tmp_path)
    ids = piece_ids(3, 1, 80)
    np.testing.assert_array_equal(results(decoder(ids))[0], results(pair.model(ids))[0])


def our_pieces(pair, prompts, eos):
    longest = max(map(len, prompts))
    ids = np.stack([np.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
    config = GreedyGeneratorConfig(eos_id=eos, max_generated_pieces=N_GENERATED)
    rows = [[] for _ in prompts]
    for numbers, pieces in Generator(pair.model)(attention_mask=ids != 0, ids=ids, config=config):
        for number, piece in zip(np.asarray(numbers), np.asarray(pieces)[:, 0], strict=True):
            rows[number].append(int(piece))
    return rows


@DECODERS
def test_greedy_pieces_of_ragged_prompts(pair):
    prompts = [piece_ids(20 + length, length) for length in (3, 64, 1, 30)]
    expected = generate(pair.reference, prompts, N_GENERATED)
    assert our_pieces(pair, prompts, eos=-1) == expected
    # Then a piece that was generated ends its text, while the others go on.
    eos = expected[0][N_GENERATED // 2]
    ended = generate(pair.reference, prompts, N_GENERATED, eos)
    assert len(ended[0]) <= N_GENERATED // 2
    assert our_pieces(pair, prompts, eos) == ended


@ALL
def test_config_json_means_the_same_as_written_and_as_transformers_saves_it(pair, tmp_path):
    shutil.copy(pair.folder / "model.safetensors", tmp_path)
    write_config(pair.variant, tmp_path)
    saved = json.loads((pair.folder / "config.json").read_text())
    assert saved != pair.variant.config
    ids = piece_ids(3, 1, 80)
    hidden, _ = results(load(pair.variant, tmp_path)(ids))
    np.testing.assert_array_equal(hidden, results(pair.model(ids))[0])


@ALL
def test_config_json_that_we_write_means_the_same_to_transformers(pair):
    written = type(pair.model).config_to_hf(pair.model.config)
    # Which pieces are special is the tokenizer's, and not part of our configurations.
    special = {k: v for k, v in pair.variant.config.items() if k.endswith("_token_id")}
    again = build(dataclasses.replace(pair.variant, config=special | written))
    ids = piece_ids(3, 1, 80)
    np.testing.assert_array_equal(run(again, ids)[0], run(pair.reference, ids)[0])


@parametrize([variant for variant in VARIANTS if variant.names == "plain" and variant.golden])
def test_a_sharded_checkpoint_is_the_whole(pair, tmp_path):
    pair.reference.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert (tmp_path / "model.safetensors.index.json").exists()
    ids = piece_ids(3, 1, 80)
    hidden, _ = results(load(pair.variant, tmp_path)(ids))
    np.testing.assert_array_equal(hidden, results(pair.model(ids))[0])


def rms_distance(ours, expected):
    """Over all tokens at once: what a precision loses on average, not at its worst token."""
    difference = np.float64(ours) - expected
    return float(np.sqrt((difference**2).sum() / (np.float64(expected) ** 2).sum()))


class Half:
    """A variant with rounded weights: in transformers with f32 arithmetic and in half precision,
    and ours. Activations here are f32 between operations and transformers rounds after each of
    them, so that ours lose two thirds of what theirs do at most. Only where there is one operation
    so far, the norm of an embedding, both lose the same but for a value on a border: a thousandth
    is left to that."""

    def __init__(self, pair, dtype, folder):
        self.pair = pair
        kind = model_class(pair.variant)
        build(pair.variant).to(getattr(torch, dtype)).save_pretrained(folder)
        self.exact = kind.from_pretrained(folder, dtype=torch.float32).eval()
        self.theirs = kind.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.ours = load(pair.variant, folder)
        assert self.ours.dtype == dtype

    def assert_no_worse(self, ours, theirs, exact):
        states = [*zip(ours[0], theirs[0], exact[0], strict=True)]
        if ours[1] is not None:
            states.append((ours[1], theirs[1], exact[1]))
        for number, (our_state, their_state, exact_state) in enumerate(states):
            our_loss = rms_distance(our_state, exact_state)
            their_loss = rms_distance(their_state, exact_state)
            assert our_loss <= 1.001 * their_loss, (number, our_loss, their_loss)


HALF = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


@ALL
@HALF
def test_half_precision_loses_no_more_than_transformers_does(pair, dtype, tmp_path):
    half = Half(pair, dtype, tmp_path)
    ids, mask = ragged_batch(left=False)
    ours = pair.masked(half.ours(ids, mask), mask)
    theirs, exact = (at(run(model, ids, mask), mask) for model in (half.theirs, half.exact))
    half.assert_no_worse(ours, theirs, exact)
    converted = load(pair.variant, pair.folder, dtype=dtype)  # of the f32 checkpoint
    np.testing.assert_array_equal(pair.masked(converted(ids, mask), mask)[0], ours[0])


@parametrize([variant for variant in VARIANTS if variant.is_decoder and variant.golden])
@HALF
def test_nor_with_the_cache(pair, dtype, tmp_path):
    half = Half(pair, dtype, tmp_path)
    ids = piece_ids(12, 2, 140)
    parts, start, cache = [], 0, None
    for end in (70, *range(71, 140, 6), 140):
        mask = np.ones((2, end), dtype=bool)
        output = half.ours(ids[:, start:end], mask, cache=cache, store_cache=True)
        parts.append(results(output))
        start, cache = end, output.cache
    ours = (
        np.concatenate([part[0] for part in parts], axis=2),
        np.concatenate([part[1] for part in parts], axis=1),
    )
    half.assert_no_worse(ours, run(half.theirs, ids), run(half.exact, ids))


def test_every_option_changes_the_reference():
    """The comparison has power: the same weights under another configuration are further away than
    the limit allows, unless the two mean the same."""
    ids = piece_ids(3, 1, 200)
    groups = {}
    for variant in VARIANTS:
        reference = build(variant)
        shapes = (f"{name} {tuple(p.shape)}" for name, p in reference.named_parameters())
        key = (variant.architecture, variant.names, *shapes)
        groups.setdefault(key, {})[variant.name] = run(reference, ids)
    for (architecture, *_), outputs in groups.items():
        for a, b in itertools.combinations(outputs, 2):
            same = any({a, b} <= names for names in SAME_MEANING[architecture])
            (states, logits), (other_states, other_logits) = outputs[a], outputs[b]
            apart = distance(states[-1], other_states[-1])
            if logits is not None:
                apart = max(apart, distance(logits, other_logits))
            assert (apart < 2 * LIMIT) == same, (architecture, a, b)


def test_the_table_in_docs_is_that_of_these_tests():
    """`make table` writes it. In a process of its own, since pytest does not nest."""
    code = "from models.table import *; assert page_with(table()) == PAGE.read_text()"
    folders = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": folders}
    )

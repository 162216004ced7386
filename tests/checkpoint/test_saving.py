"""What `save` writes: read again by us, and by a reader of safetensors that knows nothing of it."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from memory_limit import SANITIZED
from models.comparison import golden_weights, load, results, write_config
from models.variants import VARIANTS, piece_ids

from curated_transformers.checkpoint import load_checkpoint
from curated_transformers.checkpoint.writer import byte_count
from curated_transformers.models import AutoCausalLM, AutoEncoder, BERTConfig, BERTEncoder
from curated_transformers.repository.atomic import AtomicFiles

IDS = np.array([[3, 1, 4, 1, 5]])
FIRST = {}
for variant in VARIANTS:
    if variant.golden:
        FIRST.setdefault(variant.architecture, variant)


@pytest.fixture
def llama(tmp_path):
    return AutoCausalLM.from_path(small_models.llama(tmp_path / "model"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_a_saved_model_computes_the_same(variant, tmp_path):
    write_safetensors(tmp_path / "model.safetensors", golden_weights(variant))
    write_config(variant, tmp_path)
    model = load(variant, tmp_path)
    model.save(tmp_path / "saved")
    again = load(variant, tmp_path / "saved")
    assert type(again) is type(model)
    assert vars(again.config) == vars(model.config)
    for ours, expected in zip(
        results(again(piece_ids(3, 1, 20))), results(model(piece_ids(3, 1, 20))), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_file_holds_the_weights_in_the_models_dtype(dtype, tmp_path):
    folder = small_models.bert(tmp_path / "model")
    weights = small_models.read_weights(folder)
    AutoEncoder.from_path(folder, dtype=dtype).save(tmp_path / "saved")
    raw = (tmp_path / "saved" / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header.keys() == weights.keys()
    end = 0
    for name, entry in header.items():
        begin, end_of_entry = entry["data_offsets"]
        assert begin == end, "a hole"
        end = end_of_entry
        stored = raw[8 + length + begin : 8 + length + end]
        if dtype == "bfloat16":  # the upper half, rounded to the nearest even one
            bits = weights[name].view(np.uint32).astype(np.uint64)
            rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
            values, expected = np.frombuffer(stored, "<u2"), rounded.astype(np.uint16)
        else:
            values, expected = np.frombuffer(stored, dtype), weights[name].astype(dtype)
        np.testing.assert_array_equal(values, expected.ravel())
        assert tuple(entry["shape"]) == weights[name].shape
        assert entry["dtype"] == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    assert 8 + length + end == len(raw)
    assert (8 + length) % 8 == 0


def test_large_models_become_shards_with_an_index(llama, tmp_path):
    llama.save(tmp_path / "saved", max_shard_size="10KB")
    names = sorted(path.name for path in (tmp_path / "saved").glob("*.safetensors"))
    assert len(names) > 2
    assert names == [
        f"model-{i:05}-of-{len(names):05}.safetensors" for i in range(1, len(names) + 1)
    ]
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    weights = small_models.read_weights(tmp_path / "model")
    assert index["weight_map"].keys() == weights.keys()
    assert set(index["weight_map"].values()) == set(names)
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in weights.values())
    for name in names:
        held = [weights[key].nbytes for key, shard in index["weight_map"].items() if shard == name]
        assert sum(held) <= 10_000 or len(held) == 1
    again = AutoCausalLM.from_path(tmp_path / "saved")
    np.testing.assert_array_equal(again(IDS).logits.numpy(), llama(IDS).logits.numpy())


def test_a_model_may_be_saved_to_where_it_came_from(llama, tmp_path):
    before = llama(IDS).logits.numpy()
    other = tmp_path / "model" / "tokenizer.json"
    other.write_text("{}")
    for size in ("10KB", "12KB", "5GB", "10KB"):
        llama.save(tmp_path / "model", max_shard_size=size)
        np.testing.assert_array_equal(llama(IDS).logits.numpy(), before)  # the mapping stays
        llama = AutoCausalLM.from_path(tmp_path / "model")
        np.testing.assert_array_equal(llama(IDS).logits.numpy(), before)
    assert not (tmp_path / "model" / "model.safetensors").exists()
    totals = {re.search(r"of-(\d+)", p.name)[1] for p in (tmp_path / "model").glob("model-*")}
    assert len(totals) == 1, "shards of an earlier checkpoint are left"
    assert other.read_text() == "{}"


def test_a_folder_is_as_before_when_saving_fails(llama, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    before = contents(folder)
    written = []

    def fail_at_the_fifth(tensor):
        written.append(tensor)
        if len(written) == 5:
            raise OSError("no space left")
        return tensor

    monkeypatch.setattr(llama, "_converted", fail_at_the_fifth)
    with pytest.raises(OSError, match="no space left"):
        llama.save(folder, max_shard_size="3KB")
    assert contents(folder) == before


def test_files_get_their_names_when_all_are_on_the_disk(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd))[1])
    monkeypatch.setattr(
        "pathlib.Path.replace",
        lambda self, target: (events.append(target.name), replace(self, target))[1],
    )
    with AtomicFiles(tmp_path) as files:
        files.open("a").write(b"1")
        files.open("b").write(b"2")
        assert not (tmp_path / "a").exists()
    assert events == ["sync", "sync", "a", "b", "sync"]
    assert contents(tmp_path) == {"a": b"1", "b": b"2"}


def test_nothing_is_left_beside_when_a_rename_fails(llama, tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(str(target))

    before = contents(tmp_path / "model")
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(PermissionError, match=r"model\.safetensors"):
        llama.save(tmp_path / "model")
    assert contents(tmp_path / "model") == before


def test_nothing_is_left_when_what_was_written_does_not_fit(tmp_path):
    """What a file holds back is written when it is flushed, and once more when it is closed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "a").write_bytes(b"old")
    files = AtomicFiles(tmp_path)
    for name in "ab":
        files.open(name).write(b"x" * 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            files.__exit__(None, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == {"a": b"old"}


SAVE_WITHIN_30_MB = """
import sys
from memory_limit import memory_limit
from curated_transformers.models import AutoCausalLM
model = AutoCausalLM.from_path(sys.argv[1], dtype="bfloat16")
with memory_limit(30 << 20):
    model.save(sys.argv[2])
    try:
        model.state_dict()  # which is a second copy
    except MemoryError:
        sys.exit(0)
sys.exit("the limit does not limit")
"""


@pytest.mark.skipif(SANITIZED, reason="needs a limit on memory")
def test_saving_takes_no_second_copy_of_the_model(tmp_path):
    """All weights in bfloat16 are 49 MB, which is more than the process may take while they are
    converted and written. The largest of them has 4 MB, and 10 MB are for a part on its way. In a
    process of its own: what others have given back would not count."""
    folder = small_models.llama(tmp_path / "model", width=1024, heads=8, layers=8, pieces=2000)
    subprocess.run(
        [sys.executable, "-c", SAVE_WITHIN_30_MB, str(folder), str(tmp_path / "saved")],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (tmp_path / "saved" / "model.safetensors").stat().st_size > 40 << 20


def test_tied_heads_are_not_written_twice(tmp_path):
    folder = small_models.llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    model = AutoCausalLM.from_path(folder)
    model.save(tmp_path / "saved")
    assert "lm_head.weight" not in load_checkpoint(tmp_path / "saved")
    again = AutoCausalLM.from_path(tmp_path / "saved")
    np.testing.assert_array_equal(again(IDS).logits.numpy(), model(IDS).logits.numpy())


def test_a_state_that_was_loaded_is_saved(llama, tmp_path):
    state = {name: tensor.numpy() * 2 for name, tensor in llama.state_dict().items()}
    llama.load_state_dict(state)
    llama.save(tmp_path / "saved")
    again = AutoCausalLM.from_path(tmp_path / "saved").state_dict()
    assert again.keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(again[name].numpy(), values)


def test_special_pieces_of_config_json_are_kept(tmp_path):
    folder = small_models.llama(tmp_path / "model")
    special = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": None}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | special))
    AutoCausalLM.from_path(folder).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert {name: saved[name] for name in special} == special


def test_models_without_weights_and_from_gguf_are_not_saved(tmp_path, smollm2):
    config = BERTConfig(hidden_width=8, embedding_width=8, n_attention_heads=2, n_pieces=9)
    with pytest.raises(RuntimeError, match="no weights yet"):
        BERTEncoder(config).save(tmp_path / "saved")
    with pytest.raises(NotImplementedError, match=r"\.gguf: a model from a GGUF file cannot"):
        AutoCausalLM.from_path(smollm2).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *((1, 1), ("7", 7), ("10KB", 10_000), ("1.5 mb", 1_500_000), ("5GB", 5 * 10**9)),
        *(("1KiB", 1024), ("2TiB", 2 * 1024**4), ("3g", 3 * 10**9)),
    ],
)
def test_sizes(size, expected):
    assert byte_count(size) == expected


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "", "KB", "5XB", "-5GB", "0GB", None, "1e3"])
def test_what_is_no_size_is_refused(size, llama, tmp_path):
    with pytest.raises(ValueError, match="a size must be"):
        llama.save(tmp_path / "saved", max_shard_size=size)

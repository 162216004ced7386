"""``info`` reads configuration and headers, here or on the Hub, and no weights; ``cache`` lists
what is there."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import small_models
from checkpoint_writers import FLOAT32, STRING, UINT32, gguf, write_safetensors
from hub_server import COMMIT, Fault

from curated_transformers import cli
from curated_transformers.checkpoint import GGUFFile, load_checkpoint
from curated_transformers.cli import headers
from curated_transformers.models import AutoCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig


@pytest.fixture
def info(capsys):
    """Runs the command and gives its rows; what has no title continues a row."""

    def info(*arguments):
        assert cli.main(["info", *map(str, arguments)]) == 0
        out, errors = capsys.readouterr()
        assert errors == ""
        rows, title = {}, ""
        for line in out.splitlines():
            title = line[:12].strip() or title
            rows.setdefault(title, []).append(line[12:].strip())
        return {title: lines[0] if len(lines) == 1 else lines for title, lines in rows.items()}

    return info


@pytest.fixture
def llama(tmp_path):
    return small_models.llama(tmp_path / "m", positions=77)


def n_parameters(folder):
    return sum(array.size for array in small_models.read_weights(folder).values())


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def test_a_folder(info, llama):
    n = n_parameters(llama)
    size = os.path.getsize(llama / "model.safetensors")
    assert info(llama) == {
        "model": str(llama),
        "architecture": "llama (causal language model, LlamaCausalLM)",
        "supported": "yes",
        "shape": "2 layers, width 32, 4 heads (2 of keys and values), 50 pieces, 77 positions",
        "checkpoint": f"SafeTensors, 1 file, {size / 1000:.1f} kB",
        "parameters": [f"{n:,}", f"F32: {n:,} in {4 * n / 1000:.1f} kB"],
        # keys and values: 2 layers, 2 heads of width 8, 4 bytes, 1000 pieces
        "memory": f"{4 * n / 1000:.1f} kB of weights (float32 where they are not quantized), "
        "256.0 kB of cache for 1000 pieces",
        "read": "config.json and the files' headers; no weights",
    }


def test_memory_is_that_of_the_type_that_is_computed_with(info, tmp_path):
    folder = small_models.llama(tmp_path / "m", dtype="bfloat16")
    change_config(folder, dtype="float32")
    rows = info(folder)
    n = sum(np.prod(p.shape) for p in AutoCausalLM.from_path(folder).parameters())
    assert rows["parameters"] == [f"{n:,}", f"BF16: {n:,} in {2 * n / 1000:.1f} kB"]
    assert rows["memory"].startswith(f"{4 * n / 1000:.1f} kB of weights (float32")


def test_encoders_have_no_cache(info, tmp_path):
    rows = info(small_models.bert(tmp_path / "m"))
    assert rows["architecture"] == "bert (encoder, BERTEncoder)"
    assert rows["supported"] == "yes"
    assert rows["shape"] == "2 layers, width 32, 4 heads, 50 pieces, 40 positions"
    assert "cache" not in rows["memory"]


@pytest.mark.parametrize("kind", ["F32", "Q6_K"])
def test_a_gguf_file(info, llama, kind):
    # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    metadata = [
        ("general.architecture", STRING, "llama"),
        ("llama.embedding_length", UINT32, 256),
        ("llama.feed_forward_length", UINT32, 512),
        ("llama.block_count", UINT32, 1),
        ("llama.attention.head_count", UINT32, 4),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
    ]
    number, bytes_per_value = {"F32": (0, 4), "Q6_K": (14, 210 / 256)}[kind]
    shapes = {"token_embd": (256, 60), "blk.0.ffn_up": (256, 512)}
    tensors, end = [("output_norm.weight", [256], 0, 0)], 1024
    for name, shape in shapes.items():
        tensors.append((f"{name}.weight", list(shape), number, end))
        end += int(math.prod(shape) * bytes_per_value) + 31 & ~31
    path = llama / "m.gguf"
    path.write_bytes(gguf(metadata, tensors, b"\0" * end))
    rows = info(path)
    assert rows["architecture"] == "llama (causal language model, LlamaCausalLM)"
    n = 256 * 60 + 256 * 512
    sizes = [f"{n * bytes_per_value / 1000:.1f} kB", "1.0 kB"]
    assert rows["parameters"][0] == f"{n + 256:,}"
    if kind == "F32":
        assert rows["parameters"][1:] == [f"F32: {n + 256:,} in {(4 * n + 1024) / 1000:.1f} kB"]
    else:
        assert rows["parameters"][1:] == [f"Q6_K: {n:,} in {sizes[0]}", f"F32: 256 in {sizes[1]}"]
    is_read = kind in GGUFFile.supported
    assert rows["supported"] == (
        "yes" if is_read else f"no: its tensors of type {kind} cannot be read"
    )
    assert rows["shape"] == "1 layer, width 256, 4 heads, 60 pieces"
    assert rows["checkpoint"].startswith("GGUF, 1 file, ")
    assert rows["read"] == "the file's metadata; no weights"


@pytest.mark.parametrize(
    ("changes", "architecture", "message"),
    [
        ({"model_type": "xyz"}, "xyz", "model_type `xyz`"),
        ({"hidden_act": "frob"}, "llama (causal language model, LlamaCausalLM)", "frob"),
        ({"num_attention_heads": 5}, "llama (causal language model, LlamaCausalLM)", "divisible"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "llama (causal language model, LlamaCausalLM)",
            "quantized by `gptq`",
        ),
        ({"hidden_size": None}, "llama (causal language model, LlamaCausalLM)", "hidden_size"),
    ],
)
def test_why_a_model_is_not_supported(info, llama, changes, architecture, message):
    rows = info(change_config(llama, **changes))
    assert rows["architecture"] == architecture
    assert rows["supported"].startswith("no: ")
    assert message in rows["supported"]
    assert rows["parameters"][0] == f"{n_parameters(llama):,}"


@pytest.mark.parametrize("format", ["llm_int8", "nf4", "fp4"])
def test_a_checkpoint_of_bitsandbytes(info, llama, tmp_path, format, monkeypatch):
    config = BitsAndBytesConfig.for_8bit()
    if format != "llm_int8":
        config = BitsAndBytesConfig.for_4bit(format, double_quantization=False)
    AutoCausalLM.from_path(llama, quantization_config=config).save(tmp_path / "saved")
    n = n_parameters(llama)
    weights = small_models.read_weights(llama)
    linear = {name: array for name, array in weights.items() if "_proj" in name}
    n_linear = sum(array.size for array in linear.values())
    file = load_checkpoint(tmp_path / "saved")
    size = sum(file[name].nbytes for name in file if "_proj" in name)
    monkeypatch.setattr(
        headers.SafeTensorsFile, "__getitem__", lambda *_: pytest.fail("a tensor was made")
    )
    rows = info(tmp_path / "saved")
    assert rows["supported"] == "yes"
    assert rows["parameters"][0] == f"{n:,}"
    assert set(rows["parameters"][1:]) == {
        f"F32: {n - n_linear:,} in {4 * (n - n_linear) / 1000:.1f} kB",
        f"{format}: {n_linear:,} in {size / 1000:.1f} kB, 14 matrices with their scales",
    }
    assert rows["memory"].startswith(f"{(4 * (n - n_linear) + size) / 1000:.1f} kB of weights")


def test_scales_of_a_matrix_that_is_not_there(info, llama):
    weights = small_models.read_weights(llama)
    side = {"model.layers.7.mlp.up_proj.SCB": np.ones(3, np.float32)}
    write_safetensors(llama / "model.safetensors", weights | side)
    rows = info(llama)
    assert "up_proj.SCB`, but no `model.layers.7.mlp.up_proj.weight`" in rows["supported"]
    assert rows["parameters"][0] == f"{n_parameters(llama):,}"  # the scales are among them


def test_a_tensor_that_the_architecture_does_not_have(info, llama):
    weights = small_models.read_weights(llama)
    write_safetensors(
        llama / "model.safetensors", weights | {"model.frob.weight": np.zeros(3, np.float32)}
    )
    assert "`model.frob.weight`" in info(llama)["supported"]


def test_tensors_of_a_type_that_cannot_be_read(info, llama):
    weights = small_models.read_weights(llama)
    weights["model.norm.weight"] = weights["model.norm.weight"].astype(np.float64)
    write_safetensors(llama / "model.safetensors", weights)
    assert "type F64 cannot be read" in info(llama)["supported"]


def test_a_folder_without_a_checkpoint(info, llama):
    (llama / "model.safetensors").unlink()
    rows = info(llama)
    assert "the repository has no checkpoint" in rows["supported"]
    assert set(rows) == {"model", "architecture", "supported", "shape"}


def test_no_memory_is_read(info, llama, monkeypatch):
    """The weights are a hole in the file: reading them would be seen as zeros, not as an error, so
    what is asked is that no tensor is made."""
    monkeypatch.setattr(
        headers.SafeTensorsFile, "__getitem__", lambda *_: pytest.fail("a tensor was made")
    )
    assert info(llama)["supported"] == "yes"


# ---- models on the Hub ----


@pytest.fixture
def remote(hub, llama):
    """The model on the Hub in two shards, whose weights are far longer than what is asked for."""
    weights = small_models.read_weights(llama)
    weights["lm_head.weight"] = np.zeros((50, 32), np.float32)
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    files = {"config.json": (llama / "config.json").read_bytes()}
    for file, part in parts.items():
        write_safetensors(llama / file, {name: weights[name] for name in part})
        files[file] = (llama / file).read_bytes()
    index = {name: file for file, part in parts.items() for name in part}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    hub.add("org/m", files, large=set(parts))
    return files


def sizes_of(rows):
    return {title: rows[title] for title in ("shape", "checkpoint", "parameters", "memory")}


def test_of_a_model_on_the_hub_only_headers_are_fetched(
    info, hub, remote, llama, cache, monkeypatch
):
    monkeypatch.setattr(headers, "_FIRST", 64)
    rows = info("org/m")
    shutil.copy(llama / "a.safetensors", llama / "model.safetensors")
    assert rows["supported"] == "yes"
    assert rows["read"].endswith("no weights, and none were downloaded")
    for file in ("a.safetensors", "b.safetensors"):
        header = 8 + int.from_bytes(remote[file][:8], "little")
        stored = [s for s in hub.requests("GET", "storage:") if s.headers["range"]]
        ranges = {seen.headers["range"] for seen in stored}
        assert {"bytes=0-63", f"bytes=64-{header - 1}"} <= ranges
    assert len(hub.requests("GET", "storage:")) == 4
    cached = {path.name for path in cache.rglob("*") if path.is_symlink()}
    assert cached == {"config.json", "model.safetensors.index.json"}
    # The same as of the files themselves.
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_bytes(remote["model.safetensors.index.json"])
    assert sizes_of(rows) == sizes_of(info(llama))


def test_what_is_cached_is_not_asked_for(info, hub, remote, monkeypatch):
    expected = sizes_of(info("org/m"))
    AutoCausalLM.from_hf_hub_to_cache(name="org/m")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    rows = info("org/m")
    assert sizes_of(rows) == expected
    assert rows["read"] == "config.json and the files' headers; no weights"
    assert hub.seen == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=403), "the Hub denies access"),
        (Fault(body=b"x" * 100, headers={"Content-Length": "100"}), "asked for the bytes"),
    ],
)
def test_a_header_that_does_not_come(info, hub, remote, fault, message):
    hub.fail("GET", "storage:", fault)
    rows = info("org/m")
    assert rows["supported"].startswith("no: ")
    assert message in rows["supported"]
    assert "parameters" not in rows


def test_a_server_that_sends_whole_files_is_stopped(info, hub, remote, monkeypatch):
    monkeypatch.setattr(headers, "_FIRST", 64)
    hub.fail("GET", "storage:", *[Fault(ignore_range=True)] * 4)
    assert "longer than the 64 bytes" in info("org/m")["supported"]


def test_files_without_a_header_are_not_downloaded(info, hub, llama):
    files = {"config.json": (llama / "config.json").read_bytes()}
    files["pytorch_model.bin"] = b"x" * 12345
    hub.add("org/m", files, large={"pytorch_model.bin"})
    rows = info("org/m")
    assert rows["supported"] == "yes"
    assert rows["checkpoint"] == "PyTorch StateDict, 1 file, 12.3 kB"
    assert rows["parameters"].startswith("not counted")
    assert rows["read"] == "config.json; no weights, and none were downloaded"
    assert hub.requests("GET", "pytorch_model.bin") == []


def test_a_broken_header_on_the_hub(info, hub, llama):
    files = {"config.json": (llama / "config.json").read_bytes()}
    files["model.safetensors"] = b"\xff" * 200_000
    hub.add("org/m", files)
    assert "a header of 18446744073709551615 bytes does not fit" in info("org/m")["supported"]


# ---- cache ----


def test_an_empty_cache(cache, capsys):
    assert cli.main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 models, 0 B, in {cache}\n"


def test_cached_repositories_with_sizes_and_commits(hub, remote, cache, capsys):
    hub.add("tiny", {"config.json": b"{}", "model.safetensors": b"x" * 1234}).revisions["v1"] = (
        "f" * 40
    )
    AutoCausalLM.from_hf_hub_to_cache(name="org/m")
    for revision in ("main", "v1", "f" * 40):
        AutoCausalLM.from_hf_hub_to_cache(name="tiny", revision=revision)
    (cache / "models--tiny" / "refs" / "v1").unlink()
    (cache / "datasets--x").mkdir()
    (cache / "version.txt").write_text("1")
    assert cli.main(["cache"]) == 0
    size = sum(len(content) for content in remote.values())
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["MODEL", "SIZE", "REVISION", "COMMIT"],
        ["org/m", f"{size / 1000:.1f}", "kB", "main", COMMIT],
        ["tiny", "1.2", "kB", "main", COMMIT],
        ["f" * 40],
        ["2", "models,", f"{(size + 1236) / 1000:.1f}", "kB,", "in", str(cache)],
    ]

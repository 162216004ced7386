"""The GPU's check and benchmark where there is no GPU: small shapes on the CPU, and what is said of
a machine that lacks everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.checkpoints import Safetensors  # noqa: E402
from benchmarks.gpu import report  # noqa: E402
from benchmarks.gpu.jobs import BNB, EAGER, OURS, plan  # noqa: E402
from benchmarks.gpu.shapes import (  # noqa: E402
    OUTLIER_SIZE,
    SHAPES,
    TILE_VALUES,
    write_checkpoint,
)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_small_shapes_are_measured_on_the_cpu(tmp_path):
    target = tmp_path / "made" / "bench.json"
    shapes = ["tiny-llama", "tiny-bert"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--peers", OURS]
    done = run(*command, "--threads", "2", "--json", str(target), "--shapes", *shapes)
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    assert document["not_run"] == []
    rows = document["results"]
    forms = {row["form"] for row in rows}
    assert forms == {"bf16", "int8-0.0", "int8-6.0", "nf4", "nf4-double", "fp4", "fp4-double"}
    for form in forms:
        measured = [(row["what"], row["batch"]) for row in rows if row["form"] == form]
        decoder = [("decode", 1), ("prefill", 1), ("decode", 3)]
        assert measured == decoder + [("encode", 2)] * (form == "bf16")
    assert all(row["tokens_per_s"] > 0 and len(row["seconds"]) == 3 for row in rows)
    assert all(len(row["output"]) == 4 for row in rows if row["what"] == "decode")
    assert "tiny-llama prefill" in done.stdout


def test_what_there_is_no_time_for_is_said(tmp_path):
    target = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--seconds", "1"]
    done = run(*command, "--peers", OURS, "--json", str(target), "--shapes", "tiny-bert")
    assert done.returncode == 1
    assert "not run: tiny-bert bf16, ours: time was up" in done.stdout
    assert "nothing of ours was measured" in done.stderr


def test_a_checkpoint_is_tiled_and_its_norms_have_outliers(tmp_path):
    shape = SHAPES["tiny-gpt-neox"]
    tensors = Safetensors(write_checkpoint(shape, tmp_path) / "model.safetensors")
    assert {name: tuple(tensors[name].shape) for name in shape.tensors(shape.config)} == (
        shape.tensors(shape.config)
    )
    bits = tensors["embed_out.weight"].astype("uint32") << 16
    assert 0.019 < bits.view("float32").std() < 0.021
    norm = (tensors["gpt_neox.layers.1.input_layernorm.weight"].astype("uint32") << 16).view("f4")
    assert norm[0] == OUTLIER_SIZE
    assert set(norm[1:]) == {1.0}
    assert tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.bias"].max() == 0


def test_a_matrix_longer_than_the_tile_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.shapes.TILE_VALUES", 1000)
    assert TILE_VALUES > 1000
    shape = SHAPES["tiny-llama"]
    tensors = Safetensors(write_checkpoint(shape, tmp_path) / "model.safetensors")
    values = tensors["lm_head.weight"].ravel()
    assert (values[:1000] == values[1000:2000]).all()
    assert (values[-200:] == values[(len(values) - 200) % 1000 :][:200]).all()


# ---- figures ----


@pytest.mark.parametrize(
    ("name", "form", "gigabytes"),
    [
        ("dolly-v2-3b", "bf16", 5.29),
        ("dolly-v2-3b", "int8-6.0", 2.77),
        ("dolly-v2-3b", "nf4", 1.67),
        ("llama-2-7b", "bf16", 13.21),
        ("llama-2-7b", "fp4", 3.90),
    ],
)
def test_bytes_of_a_token_are_those_of_the_published_models(name, form, gigabytes):
    assert report.weight_bytes(SHAPES[name], form) / 1e9 == pytest.approx(gigabytes, abs=0.01)


def test_figures_are_put_beside_limits_and_others(monkeypatch):
    gpu = {"device": "cuda", "name": "NVIDIA H100 80GB HBM3", "driver": "1", "memory_mib": 1}
    gpu["datasheet_bytes_per_s"] = 3.35e12
    monkeypatch.setattr(report, "describe_gpu", lambda device: gpu)

    def result(peer, rate, pieces):
        decode = {"what": "decode", "batch": 1, "tokens_per_s": rate, "seconds": [127 / rate]}
        prefill = {"what": "prefill", "batch": 1, "tokens_per_s": 2048, "seconds": [1.0]}
        return {
            "shape": "llama-2-7b", "form": "bf16", "peer": peer, "detail": "", "load_s": 1.0,
            "versions": {}, "measured": [{**decode, "output": pieces}, {**prefill, "output": []}],
        }  # fmt: skip

    limits = {"copy_bytes_per_s": 3.0e12, "dense_flops": 8.0e14}
    results = [result(OURS, 180.0, [1, 2, 3, 4]), result(EAGER, 45.0, [1, 2, 5, 4])]
    document = report.make_document("cuda", 1, limits, results, [])
    ours, prefill, eager, _ = document["results"]
    assert ours["of_datasheet_bandwidth"] == pytest.approx(180 * 13.215e9 / 3.35e12, rel=1e-3)
    assert ours["of_copy_bandwidth"] == pytest.approx(180 * 13.215e9 / 3.0e12, rel=1e-3)
    assert ours["goal"] == 0.7
    assert "ours_is_faster" not in ours
    # 2 * 6.476e9 * 2048 products, and attention's
    assert prefill["of_dense_rate"] == pytest.approx((2.652e13 + 1.1e12) / 8.0e14, rel=1e-2)
    assert eager["ours_is_faster"] == 4.0
    assert eager["ratio_goal"] == 3.0
    assert eager["agreement"] == "2 of 4 pieces equal"


def test_names_of_gpus_are_told_apart():
    for name, bandwidth in (
        ("NVIDIA H100 PCIe", 2.0e12),
        ("NVIDIA H100 80GB HBM3", 3.35e12),
        ("NVIDIA H200", 4.8e12),
        ("NVIDIA GeForce GTX 1080", None),
    ):
        assert report.datasheet_bandwidth(name) == bandwidth


def test_what_matters_most_comes_first():
    jobs = plan([SHAPES["dolly-v2-3b"], SHAPES["llama-2-7b"], SHAPES["bert-base"]])
    assert len(set(map(str, jobs))) == len(jobs)
    assert [job.peer for job in jobs[:6]] == [OURS] * 6
    first_of = {peer: [job.peer for job in jobs].index(peer) for peer in (OURS, EAGER, BNB)}
    assert first_of[OURS] < first_of[EAGER] < first_of[BNB]


# ---- the check ----


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, str(ROOT / ".ci" / "gpu-check"), *arguments, **environment)


def test_a_machine_without_a_gpu_is_told_all_that_it_lacks_at_once(tmp_path):
    done = check(PATH=str(tmp_path), CUDA_HOME=str(tmp_path), CC="cc", WHEELS="")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "this needs a machine with a GPU and a compiler for it:"
    assert [line for line in lines if line.startswith("- no NVIDIA GPU: `nvidia-smi`")]
    assert [line for line in lines if "nvcc was not found" in line and "set CUDA_HOME" in line]
    assert "- no `make`" in lines
    assert "- no `cc`" in lines
    assert "Traceback" not in done.stderr


def test_a_folder_of_wheels_that_is_not_there_is_named(tmp_path):
    done = check(WHEELS=str(tmp_path / "nothing"), PATH=str(tmp_path))
    assert done.returncode == 2
    assert f"- WHEELS={tmp_path / 'nothing'} is no folder" in done.stderr


def test_its_help_lists_the_wheels_and_other_arguments_are_refused():
    done = check("--help")
    assert done.returncode == 0
    for name in ("numpy", "setuptools", "pytest", "onednn-cpu-gomp", "transformers"):
        assert name in done.stdout
    assert check("everything").returncode == 2

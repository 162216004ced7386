"""The figures beside what the hardware could give and beside the other libraries."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

from ..report import describe_machine
from .jobs import BITS, BNB, EAGER, OURS
from .shapes import SHAPES, ModelShape

#: Bytes a second by the datasheets, for the names that the driver gives; the first that fits.
DATASHEET = {
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "A100-SXM4-80GB": 2.039e12,
    "A100 80GB PCIe": 1.935e12,
    "A100": 1.555e12,
}
#: Goals on an H100 or H200: parts of the datasheet's bandwidth that decoding at batch 1 reaches, of
#: the dense rate that prefill does, and how many times faster than a library ours is at batch 1.
DECODE_GOALS = {"bf16": 0.70, "int8-0.0": 0.60, "int8-6.0": 0.60}
DECODE_GOALS |= {form: 0.50 for form in BITS if BITS[form] < 8}
PREFILL_GOAL = 0.65
RATIO_GOALS = {EAGER: 3.0, BNB: 8.0}


def describe_gpu(device: str) -> dict[str, Any]:
    """What the driver says, None where there is none."""
    facts: dict[str, Any] = {"name": None, "driver": None, "memory_mib": None}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total"]
    try:
        said = subprocess.run(
            [*query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True
        ).stdout
        name, driver, memory = said.splitlines()[0].split(", ")
        facts = {"name": name, "driver": driver, "memory_mib": int(memory)}
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        pass
    bandwidth = datasheet_bandwidth(str(facts["name"])) if device != "cpu" else None
    return {"device": device, **facts, "datasheet_bytes_per_s": bandwidth}


def datasheet_bandwidth(name: str) -> float | None:
    return next((rate for part, rate in DATASHEET.items() if part in name), None)


def weight_bytes(shape: ModelShape, form: str) -> float:
    """That a new token at batch 1 reads. The head stays in 16 bits; the cache is not counted."""
    layers, head = shape.matrix_values()
    return layers * BITS[form] / 8 + head * 2


def prefill_operations(shape: ModelShape) -> float:
    """Products of all tokens but for the head, which one token has; half of the pairs of tokens in
    attention, which is causal, twice."""
    layers, head = shape.matrix_values()
    n, config = shape.prefill, shape.config
    pairs = config["num_hidden_layers"] * n * n * config["hidden_size"]
    return 2.0 * layers * n + 2.0 * head + 2.0 * pairs


def make_document(
    device: str,
    threads: int,
    limits: dict[str, float],
    results: list[dict[str, Any]],
    not_run: list[dict[str, str]],
) -> dict[str, Any]:
    gpu = describe_gpu(device)
    rows = [row for result in results for row in rows_of(result, gpu, limits)]
    for row in rows:
        add_ratio(row, rows)
    return {
        "gpu": gpu,
        "machine": describe_machine(threads),
        "limits": limits,
        "versions": {
            name: version for result in results for name, version in result["versions"].items()
        },
        "results": rows,
        "not_run": not_run,
    }


def rows_of(
    result: dict[str, Any], gpu: dict[str, Any], limits: dict[str, float]
) -> list[dict[str, Any]]:
    shape, form = SHAPES[result["shape"]], result["form"]
    rows = []
    for measured in result["measured"]:
        row = {key: result[key] for key in ("shape", "form", "peer", "detail", "load_s")}
        row |= measured
        rate = 1 / median(measured["seconds"])
        if row["what"] == "decode" and row["batch"] == 1:
            read = weight_bytes(shape, form) * row["tokens_per_s"]
            if gpu["datasheet_bytes_per_s"]:
                row["of_datasheet_bandwidth"] = read / gpu["datasheet_bytes_per_s"]
                row["goal"] = DECODE_GOALS[form]
            if limits:
                row["of_copy_bandwidth"] = read / limits["copy_bytes_per_s"]
        elif row["what"] == "prefill" and limits:
            row["of_dense_rate"] = prefill_operations(shape) * rate / limits["dense_flops"]
            row["goal"] = PREFILL_GOAL
        rows.append(row)
    return rows


def add_ratio(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """To a library's row: how many times faster ours is, and how far its text is the same."""
    keys = ("shape", "form", "what", "batch")
    same = [one for one in rows if all(one[key] == row[key] for key in keys)]
    ours = next((one for one in same if one["peer"] == OURS), None)
    if ours is None or row is ours:
        return
    row["ours_is_faster"] = ours["tokens_per_s"] / row["tokens_per_s"]
    if row["what"] == "decode":
        pairs = list(zip(ours["output"], row["output"], strict=False))
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        row["agreement"] = f"{equal} of {len(pairs)} pieces equal"
        if row["batch"] == 1 and row["peer"] in RATIO_GOALS:
            row["ratio_goal"] = RATIO_GOALS[row["peer"]]


def print_document(document: dict[str, Any]) -> None:
    gpu, limits = document["gpu"], document["limits"]
    print(f"{gpu['name'] or 'no GPU'} ({gpu['device']}), driver {gpu['driver']}")
    if gpu["datasheet_bytes_per_s"]:
        print(f"datasheet {gpu['datasheet_bytes_per_s'] / 1e12:.2f} TB/s", end="; ")
    if limits:
        print(
            f"copies {limits['copy_bytes_per_s'] / 1e12:.3f} TB/s read and written, dense bf16 "
            f"{limits['dense_flops'] / 1e12:.1f} TFLOP/s"
        )
    else:
        print("copies and dense rate not measured: torch is not installed, or sees no such device")
    print("; ".join(f"{name} {version}" for name, version in document["versions"].items()))
    heads = ("", "form", "library", "batch", "tokens/s", "of what there is", "ours is faster")
    print("\n" + line(*heads))
    for row in document["results"]:
        print(line(*cells(row)))
    for job in document["not_run"]:
        print(f"not run: {job['job']}: {job['why']}")


def line(shape: str, form: str, peer: str, batch: str, rate: str, part: str, ratio: str) -> str:
    text = f"{shape:22} {form:11} {peer:19} {batch:>5} {rate:>11}  {part:34} {ratio}"
    return text.rstrip()


def cells(row: dict[str, Any]) -> tuple[str, str, str, str, str, str, str]:
    names = {
        "of_datasheet_bandwidth": "of datasheet",
        "of_copy_bandwidth": "of copies",
        "of_dense_rate": "of dense rate",
    }
    parts = [f"{row[key]:.0%} {name}" for key, name in names.items() if key in row]
    if parts and "goal" in row and row["peer"] == OURS:
        parts.append(f"(goal {row['goal']:.0%})")
    ratio = ""
    if "ours_is_faster" in row:
        goal = f" (goal {row['ratio_goal']:.0f})" if "ratio_goal" in row else ""
        notes = f", {row['agreement']}" if "agreement" in row else ""
        ratio = f"{row['ours_is_faster']:.2f}x{goal}{notes}"
    what = f"{row['shape']} {row['what']}"
    rate = f"{row['tokens_per_s']:.1f}"
    return what, row["form"], row["peer"], str(row["batch"]), rate, " ".join(parts), ratio


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")

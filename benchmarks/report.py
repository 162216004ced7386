"""The table and the JSON file, with the machine that the figures were taken on.

A ratio is always ours beside a peer, turned so that above 1 ours is better: ours / peer for rates,
peer / ours for times and memory. Rates are compared round by round, and the median of those ratios
is given.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from .workloads import WORKLOADS, import_kind

RESULTS = Path(__file__).parent / "results"
# The extensions that decide which kernels libraries take.
ISA_FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip
OURS = "ours"


@dataclass
class Result:
    workload: str
    peer: str
    detail: str
    load_s: float
    #: From the start of loading to the first result.
    first_s: float
    peak_mib: float
    output: list[float]
    #: Seconds by phase, a row for each round.
    turns: list[dict[str, float]]

    def rates(self, phase: str) -> list[float]:
        """Tokens per second, by round."""
        n_tokens = phase_tokens(self.workload)[phase]
        return [n_tokens / turn[phase] for turn in self.turns]


def phase_tokens(workload_name: str) -> dict[str, int]:
    """Real tokens that each phase takes in or gives; the first new token belongs to the prompt."""
    workload = WORKLOADS[workload_name]
    if workload.kind == "encoder":
        return {"forward": workload.n_tokens}
    if workload.kind == "texts":
        return {"generate": sum(workload.new_lengths)}
    return {"prefill": workload.n_tokens, "decode": workload.new_tokens - 1}


def describe_machine(threads: int) -> dict[str, Any]:
    cpuinfo = read(Path("/proc/cpuinfo"))
    model = re.search(r"^(?:model name|CPU part)\s*:\s*(.+)$", cpuinfo, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M)
    present = set(flags[1].split()) if flags else set()
    memory = re.search(r"^MemTotal:\s*(\d+)", read(Path("/proc/meminfo")), re.M)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "isa": [flag for flag in ISA_FLAGS if flag in present],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def make_document(
    machine: dict[str, Any],
    versions: dict[str, dict[str, str]],
    imports: Mapping[str, Mapping[str, float]],
    results: list[Result],
) -> dict[str, Any]:
    """What is printed and written: every figure, and what ours is beside it."""
    ours = {result.workload: result for result in results if result.peer == OURS}
    summaries = []
    for result in results:
        kind = import_kind(WORKLOADS[result.workload])
        summary = summarize(result, imports[result.peer][kind], machine["read_gb_per_s"])
        beside = ours.get(result.workload)
        if beside is not None and beside is not result:
            summary["ratios"] = compare(beside, result)
            summary["ratios"]["import_s"] = summary["import_s"] / imports[OURS][kind]
            summary["agreement"] = agreement(beside, result)
        summaries.append(summary)
    return {"machine": machine, "versions": versions, "results": summaries}


def summarize(result: Result, import_s: float, read_gb_per_s: float) -> dict[str, Any]:
    rates = {phase: median(result.rates(phase)) for phase in result.turns[0]}
    summary = {**dataclasses.asdict(result), "import_s": import_s, "tokens_per_s": rates}
    if "decode" in rates:
        weights = weight_bytes(result.workload) * rates["decode"] / 1e9
        summary["of_read_bandwidth"] = weights / read_gb_per_s
    return summary


def compare(ours: Result, peer: Result) -> dict[str, float]:
    """How many times better ours is."""
    ratios = {
        phase: median(a / b for a, b in zip(ours.rates(phase), peer.rates(phase), strict=True))
        for phase in ours.turns[0]
    }
    for name in ("load_s", "first_s", "peak_mib"):
        ratios[name] = getattr(peer, name) / getattr(ours, name)
    return ratios


def weight_bytes(workload_name: str) -> float:
    """Bytes of weights that every new token has to read: all but the table of embeddings."""
    workload = WORKLOADS[workload_name]
    path = workload.find_path()
    if path is None or path.is_file():
        # Small models tie the table to the head, which is read.
        return path.stat().st_size if path else 0
    table = 2 * workload.config["vocab_size"] * workload.config["hidden_size"]
    size = (path / "model.safetensors").stat().st_size - int(table)
    # The head stays in 16 bits; nested scales of 64 values each take a byte and a little.
    quantized = {"": 1.0, "int8": 8 / 16, "nf4": (4 + 8.13 / 64) / 16}[workload.quantized]
    return (size - table) * quantized + table


def agreement(ours: Result, peer: Result) -> str:
    """How far outputs agree: largest difference for encoders, equal first tokens for decoders."""
    pairs = list(zip(ours.output, peer.output, strict=False))
    if not pairs:
        return ""
    if WORKLOADS[ours.workload].kind == "encoder":
        return f"max {max(abs(a - b) for a, b in pairs):.1e}"
    equal = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return f"{equal} of {len(pairs)} tokens equal"


def print_document(document: dict[str, Any]) -> None:
    machine = document["machine"]
    print(
        f"{machine['cpu']}: {machine['threads']} threads on {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, reads {machine['read_gb_per_s']:.1f} GB/s"
    )
    print(" ".join(machine["isa"]))
    for found in document["versions"].values():
        print(", ".join(f"{name} {version}" for name, version in found.items()), end="; ")
    print(f"Python {machine['python']}; {machine['date']}")
    print("(x): how many times better ours is\n")
    by_workload: dict[str, list[dict[str, Any]]] = {}
    for summary in document["results"]:
        by_workload.setdefault(summary["workload"], []).append(summary)
    for workload, summaries in by_workload.items():
        print_workload(workload, summaries)


def print_workload(workload: str, summaries: list[dict[str, Any]]) -> None:
    phases = list(summaries[0]["tokens_per_s"])
    heads = [f"{phase} tok/s" for phase in phases] + ["import s", "load s", "first s", "peak MiB"]
    print(f"{workload:26}" + "".join(f"{head:>17}" for head in heads))
    for summary in summaries:
        figures = [(phase, summary["tokens_per_s"][phase], 1) for phase in phases]
        figures += [(name, summary[name], 2) for name in ("import_s", "load_s", "first_s")]
        figures += [("peak_mib", summary["peak_mib"], 0)]
        ratios = summary.get("ratios", {})
        cells = [figure(value, ratios.get(name), digits) for name, value, digits in figures]
        notes = [summary.get("agreement", "")]
        if "of_read_bandwidth" in summary:
            notes.append(f"{summary['of_read_bandwidth']:.0%} of read bandwidth")
        label = f"  {summary['peer']} ({summary['detail']})"
        text = f"{label:26}" + "".join(f"{cell:>17}" for cell in cells)
        print(f"{text}  {', '.join(note for note in notes if note)}".rstrip())
    print()


def figure(value: float, ratio: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + (f" ({ratio:.2f}x)" if ratio is not None else "")


def write_json(path: Path | None, document: dict[str, Any]) -> Path:
    """Writes the document, by default under the name of the processor; gives the path."""
    if path is None:
        machine = document["machine"]
        name = re.sub(r"\((r|tm)\)", "", machine["cpu"].lower())
        name = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
        path = RESULTS / f"{name}-{machine['threads']}-threads.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path

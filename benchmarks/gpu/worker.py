"""The process of one job: ``python -m benchmarks.gpu.worker`` prints a line of JSON for each
measurement as it is made, so that what was measured stays when time runs out."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TextIO

from ..peers import installed_version
from ..worker import say, take_stdout
from . import ours, theirs
from .jobs import BITS, BNB, OURS, Job
from .measure import ROUNDS, machine_limits, seconds
from .shapes import SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.worker")
    parser.add_argument("command", choices=("limits", "run"))
    parser.add_argument("--device", required=True)
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--peer")
    parser.add_argument("--form", choices=list(BITS))
    parser.add_argument("--path", type=Path)
    args = parser.parse_args()
    answer = take_stdout()
    if args.command == "limits":
        say(answer, machine_limits(args.device))
    else:
        run_job(answer, Job(SHAPES[args.shape], args.peer, args.form), args.path, args.device)


def run_job(answer: TextIO, job: Job, path: Path, device: str) -> None:
    library: Any = ours if job.peer == OURS else theirs
    kind = library.Decoder if job.shape.kind == "decoder" else library.Encoder
    start = perf_counter()
    model = kind(job, path, device)
    distributions = {OURS: ["curated-transformers"], BNB: ["bitsandbytes", "transformers", "torch"]}
    names = distributions.get(job.peer, ["transformers", "torch"])
    versions = {name: installed_version(name) for name in names}
    say(
        answer,
        {"load_s": perf_counter() - start, "detail": str(model.detail), "versions": versions},
    )
    if job.shape.kind == "encoder":
        times = seconds(model.run)
        n_tokens = sum(job.shape.lengths)
        say(answer, measured("encode", len(job.shape.lengths), n_tokens, times, model.run()))
        return
    for batch in job.shape.batches:
        decode(answer, job, model, batch)
        if batch == 1:
            prefill(answer, job, model)


def decode(answer: TextIO, job: Job, model: Any, batch: int) -> None:
    length, new = job.shape.prompt, job.shape.new
    model.run(batch, length, new)  # what is compiled or chosen once
    runs = [model.run(batch, length, new) for _ in range(ROUNDS)]
    times = [run[1] for run in runs]
    say(answer, measured("decode", batch, batch * (new - 1), times, runs[-1][2]))


def prefill(answer: TextIO, job: Job, model: Any) -> None:
    length = job.shape.prefill
    times = seconds(lambda: model.run(1, length, 1))
    say(answer, measured("prefill", 1, length, times, []))


def measured(
    what: str, batch: int, n_tokens: int, times: list[float], output: list[Any]
) -> dict[str, Any]:
    return {
        "what": what,
        "batch": batch,
        "tokens_per_s": n_tokens / median(times),
        "seconds": times,
        "output": output,
    }


if __name__ == "__main__":
    main()

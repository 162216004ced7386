"""The command: a process for each library, shape and form, one after the other, until all are done
or time is up."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from ..processes import LOG_TAIL, ROOT, environment
from .jobs import BNB, OURS, Job, plan
from .report import make_document, print_document, write_json
from .shapes import SHAPES, ModelShape, choose_folder, write_checkpoint

DEFAULT_SHAPES = ["dolly-v2-3b", "llama-2-7b", "bert-base"]
TINY_SHAPES = [name for name in SHAPES if name.startswith("tiny-")]
#: With less left a process would only start; a checkpoint that is not there has to be written.
LEAST_SECONDS, WRITTEN_BYTES_PER_S = 10.0, 5e8


def main() -> None:
    args = parse_arguments()
    deadline = monotonic() + args.seconds
    shapes = [SHAPES[name] for name in args.shapes]
    folder = choose_folder(sum(shape.bytes() for shape in shapes))
    try:
        run = Run(args.device, deadline, folder, args.threads)
        for job in plan(shapes):
            if job.peer in args.peers:
                run.do(job)
                write_json(args.json, run.document())  # whatever ends the next one
    finally:
        shutil.rmtree(folder)
    document = run.document()
    print_document(document)
    write_json(args.json, document)
    print(f"written to {args.json}", file=sys.stderr)
    if not any(result["peer"] == OURS for result in run.results):
        sys.exit("nothing of ours was measured")


def parse_arguments() -> argparse.Namespace:
    peers = list(dict.fromkeys(job.peer for job in plan(list(SHAPES.values()))))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--shapes",
        nargs="+",
        choices=[*SHAPES, "tiny"],
        default=DEFAULT_SHAPES,
        metavar="NAME",
        help=f"of {', '.join(SHAPES)}; `tiny` stands for all of these",
    )
    parser.add_argument(
        "--peers", nargs="+", choices=peers, default=peers, metavar="NAME", help=", ".join(peers)
    )
    parser.add_argument("--device", default="cuda", help='"cpu" is for trying the program')
    parser.add_argument("--seconds", type=float, default=540, help="what is not run by then is not")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    out = Path(os.environ.get("OUT") or ROOT / "build" / "gpu")
    parser.add_argument("--json", type=Path, default=out / "bench.json")
    args = parser.parse_args()
    if "tiny" in args.shapes:
        args.shapes = TINY_SHAPES
    return args


class Run:
    """What was measured so far, and what was not, with the reason."""

    def __init__(self, device: str, deadline: float, folder: Path, threads: int) -> None:
        self.device, self.deadline, self.folder, self.threads = device, deadline, folder, threads
        self.results: list[dict[str, Any]] = []
        self.not_run: list[dict[str, str]] = []
        self.checkpoints: dict[str, Path] = {}
        self.torch_missing = self.find_torch()
        self.limits: dict[str, float] = {}
        if not self.torch_missing:
            lines, _ = self.ask("limits")
            self.limits = lines[0] if lines else {}

    def document(self) -> dict[str, Any]:
        return make_document(self.device, self.threads, self.limits, self.results, self.not_run)

    def do(self, job: Job) -> None:
        why = self.missing(job)
        if not why and self.deadline - monotonic() < self.least_seconds(job.shape):
            why = "time was up"
        if why:
            self.not_run.append({"job": str(job), "why": why})
            return
        print(f"{job} …", file=sys.stderr, flush=True)
        where = ["--shape", job.shape.name, "--peer", job.peer, "--form", job.form]
        lines, why = self.ask("run", *where, "--path", str(self.checkpoint(job.shape)))
        if why:
            done = f" after {len(lines) - 1} measurements" if len(lines) > 1 else ""
            self.not_run.append({"job": str(job), "why": why + done})
        if len(lines) > 1:
            names = {"shape": job.shape.name, "peer": job.peer, "form": job.form}
            self.results.append({**names, **lines[0], "measured": lines[1:]})

    def least_seconds(self, shape: ModelShape) -> float:
        is_there = shape.name in self.checkpoints
        return LEAST_SECONDS + (0 if is_there else shape.bytes() / WRITTEN_BYTES_PER_S)

    def missing(self, job: Job) -> str:
        if job.peer == OURS:
            return ""
        names = ["transformers", *(["bitsandbytes", "accelerate"] if job.peer == BNB else [])]
        absent = [name for name in names if importlib.util.find_spec(name) is None]
        return self.torch_missing or (f"{', '.join(absent)} not installed" if absent else "")

    def find_torch(self) -> str:
        """Why torch cannot be used on the device, empty where it can."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        if self.device == "cpu":
            return ""
        command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "" if said.strip() == "True" else "torch does not see a GPU"

    def checkpoint(self, shape: ModelShape) -> Path:
        if shape.name not in self.checkpoints:
            self.checkpoints[shape.name] = write_checkpoint(shape, self.folder)
        return self.checkpoints[shape.name]

    def ask(self, *arguments: str) -> tuple[list[dict[str, Any]], str]:
        """The worker's lines, and why it did not come to its end."""
        command = [sys.executable, "-m", "benchmarks.gpu.worker", *arguments]
        with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [*command, "--device", self.device],
                cwd=ROOT,
                env=environment(self.threads),
                stdout=answer,
                stderr=log,
            )
            why = ""
            try:
                if process.wait(max(self.deadline - monotonic(), 1)):
                    log.seek(0)
                    why = f"failed: {log.read()[-LOG_TAIL:].strip()}"
            except subprocess.TimeoutExpired:
                why = "time was up"
            finally:
                process.kill()
                process.wait()
            answer.seek(0)
            whole = [line for line in answer.read().splitlines(True) if line.endswith("\n")]
            return [json.loads(line) for line in whole], why


if __name__ == "__main__":
    main()

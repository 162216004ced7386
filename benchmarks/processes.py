"""Starts workers with a fixed number of threads, and talks to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from time import perf_counter, sleep
from typing import Any

ROOT = Path(__file__).parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# OpenMP threads spin for some milliseconds after their work; the next process waits that long.
PAUSE_SECONDS = 0.3
LOG_TAIL = 2000


class WorkerError(Exception):
    """A worker ended early; its last words are the text."""


def environment(threads: int) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    counts = dict.fromkeys(THREAD_VARIABLES, str(threads))
    # Modules are compiled once, as an installer compiles those of an installed package.
    python = {"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **offline, **counts, **python}


def worker_command(python: str, *arguments: str) -> list[str]:
    return [python, "-m", "benchmarks.worker", *arguments]


def ask(python: str, threads: int, *arguments: str) -> dict[str, Any]:
    """Runs a worker to its end; the answer is empty if it has nothing to say."""
    result = subprocess.run(
        worker_command(python, *arguments),
        cwd=ROOT,
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise WorkerError(result.stderr[-LOG_TAIL:])
    return dict(json.loads(result.stdout)) if result.stdout else {}


def import_seconds(python: str, threads: int, statement: str, rounds: int = 3) -> float:
    """Median time of ``statement`` in fresh processes, beyond what starting Python takes."""
    return median(start_seconds(python, threads, statement) for _ in range(rounds)) - median(
        start_seconds(python, threads, "pass") for _ in range(rounds)
    )


def start_seconds(python: str, threads: int, statement: str) -> float:
    start = perf_counter()
    command = [python, "-c", statement]
    subprocess.run(command, cwd=ROOT, env=environment(threads), check=True, capture_output=True)
    return perf_counter() - start


class Worker:
    """A process with a loaded model, which runs when it is told to."""

    def __init__(self, peer: str, python: str, workload: str, path: Path, threads: int) -> None:
        arguments = [
            "--peer",
            peer,
            "--workload",
            workload,
            "--path",
            str(path),
            "--threads",
            str(threads),
        ]
        self.peer = peer
        self.turns: list[dict[str, float]] = []
        self.log = TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            worker_command(python, "time", *arguments),
            cwd=ROOT,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.loaded = self.listen()
        sleep(PAUSE_SECONDS)

    def turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.turns.append(self.listen()["seconds"])
        sleep(PAUSE_SECONDS)

    def finish(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        peak = self.listen()
        self.close()
        return {**self.loaded, **peak, "turns": self.turns}

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.log.close()

    def listen(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self.process.wait()
        self.log.seek(0)
        text = self.log.read()[-LOG_TAIL:]
        self.close()
        raise WorkerError(text)


def default_pythons() -> list[str]:
    """This interpreter, and that of the environment in which `make oracle` has torch."""
    oracle = ROOT / ".venv-oracle" / "bin" / "python"
    return [sys.executable] + ([str(oracle)] if oracle.exists() else [])

"""The process in which one library runs one workload.

It is started by run.py, with ``python -m benchmarks.worker`` and a command; answers are JSON
lines. ``time`` loads the model, runs once to warm up (but for many texts), and then runs whenever a
line comes in, so that processes of several libraries can take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from .peers import PEERS, Runner, available, get_peer
from .workloads import WORKLOADS, import_kind

# Short workloads are repeated until a turn has taken this long.
TURN_SECONDS = 0.5
BANDWIDTH_BYTES = 2 << 30


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.worker")
    parser.add_argument("command", choices=("versions", "prepare", "time", "bandwidth"))
    parser.add_argument("--peer", choices=list(PEERS))
    parser.add_argument("--workload", choices=list(WORKLOADS))
    parser.add_argument("--path", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    answer = take_stdout()
    if args.command == "versions":
        say(answer, {name: available(get_peer(name)) for name in PEERS})
    elif args.command == "prepare":
        get_peer(args.peer).prepare(WORKLOADS[args.workload], args.path)
    elif args.command == "bandwidth":
        say(answer, {"gb_per_s": read_bandwidth(args.threads)})
    else:
        take_turns(answer, args)


def take_stdout() -> TextIO:
    """Keeps standard output for answers: what libraries print goes to standard error."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answer


def say(answer: TextIO, message: dict[str, Any]) -> None:
    answer.write(json.dumps(message) + "\n")
    answer.flush()


def take_turns(answer: TextIO, args: argparse.Namespace) -> None:
    workload = WORKLOADS[args.workload]
    peer = get_peer(args.peer)
    # Import time is measured on its own.
    exec(peer.IMPORTS[import_kind(workload)], {})
    start = perf_counter()
    runner = peer.load(workload, args.path, args.threads)
    load = perf_counter() - start
    first = 0.0
    # Many texts take minutes, in which what is done once does not show.
    if workload.kind != "texts":
        runner.run()
        first = perf_counter() - start
        runner.warm_up()
    say(answer, {"load_s": load, "detail": runner.detail})
    for _ in sys.stdin:
        seconds = turn(runner)
        first = first or load + sum(seconds.values())
        say(answer, {"seconds": seconds})
    say(answer, {"first_s": first, "output": runner.output(), "peak_mib": peak_mib()})


def turn(runner: Runner) -> dict[str, float]:
    """Medians of as many runs as fit into a turn, at least one."""
    runs: list[dict[str, float]] = []
    start = perf_counter()
    while not runs or perf_counter() - start < TURN_SECONDS:
        runs.append(runner.run())
    return {phase: median(run[phase] for run in runs) for phase in runs[0]}


def peak_mib() -> float:
    """The most memory that was resident at once, mapped files included."""
    try:
        # What getrusage reports includes the parent's memory at the time of the fork.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_bandwidth(threads: int) -> float:
    """GB/s at which threads read an array larger than any cache: the best of five passes."""
    values = np.ones(BANDWIDTH_BYTES // 4, dtype=np.float32)
    parts = np.array_split(values, threads)

    def read(part: Any) -> Callable[[], object]:
        # A dot product is the reduction that NumPy computes fastest; it lets go of the GIL.
        return lambda: np.dot(part, part)

    seconds = []
    for _ in range(5):
        readers = [threading.Thread(target=read(part)) for part in parts]
        start = perf_counter()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        seconds.append(perf_counter() - start)
    return BANDWIDTH_BYTES / min(seconds) / 1e9


if __name__ == "__main__":
    main()

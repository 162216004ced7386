"""The command: starts a worker per library, lets them take turns on each workload, and reports.

Turns go ours, peer, peer, …, and in the opposite order in every second round, so that a machine
that becomes slower or faster meanwhile does so for all of them. One process computes at a time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .peers import PEERS, get_peer
from .processes import Worker, WorkerError, ask, default_pythons, import_seconds
from .report import Result, describe_machine, make_document, print_document, write_json
from .workloads import WORKLOADS, Workload, ensure_checkpoint, import_kind

#: A library that is installed: the interpreter that has it, and its versions.
Installed = dict[str, tuple[str, dict[str, str]]]


def main() -> None:
    args = parse_arguments()
    installed = find_installed(args.peers, args.python)
    for name in args.peers:
        if name not in installed:
            note(f"{name}: not installed, left out")
    machine = describe_machine(args.threads)
    machine["read_gb_per_s"] = ask(args.python[0], 1, "bandwidth", "--threads", str(args.threads))[
        "gb_per_s"
    ]
    results: list[Result] = []
    for name in args.workloads:
        results += time_workload(WORKLOADS[name], installed, args)
    imports = measure_imports(installed, args.threads, results)
    versions = {name: found[1] for name, found in installed.items()}
    document = make_document(machine, versions, imports, results)
    print_document(document)
    note(f"written to {write_json(args.json, document)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times whole workloads beside the peers that are installed.",
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), metavar="NAME"
    )
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--json", type=Path, help="where to write the result (default: benchmarks/results/)"
    )
    parser.add_argument(
        "--python",
        nargs="+",
        default=default_pythons(),
        metavar="INTERPRETER",
        help="a library runs in the first of these that has it (default: this one, .venv-oracle)",
    )
    parser.epilog = f"workloads: {', '.join(WORKLOADS)}. peers: {', '.join(PEERS)}."
    return parser.parse_args()


def find_installed(peers: list[str], pythons: list[str]) -> Installed:
    found: Installed = {}
    for python in pythons:
        for name, versions in ask(python, 1, "versions").items():
            if versions is not None and name in peers:
                found.setdefault(name, (python, versions))
    return {name: found[name] for name in PEERS if name in found}


def time_workload(
    workload: Workload, installed: Installed, args: argparse.Namespace
) -> list[Result]:
    path = workload.find_path()
    if path is None:
        note(f"{workload.name}: its model is not installed, left out")
        return []
    note(f"{workload.name}:")
    ensure_checkpoint(workload, path)
    workers = start_workers(workload, path, installed, args.threads)
    try:
        for index in range(args.rounds):
            for worker in workers if index % 2 == 0 else reversed(workers):
                worker.turn()
                times = ", ".join(f"{phase} {s:.2f} s" for phase, s in worker.turns[-1].items())
                note(f"  {worker.peer}: {times}")
        return [Result(workload.name, worker.peer, **worker.finish()) for worker in workers]
    except WorkerError as error:
        note(f"  a worker ended, and the workload is left out:\n{error}")
        return []
    finally:
        for worker in workers:
            worker.close()


def start_workers(
    workload: Workload, path: Path, installed: Installed, threads: int
) -> list[Worker]:
    """A loaded worker for each library that can run the workload; failures are told."""
    workers = []
    for name, (python, _) in installed.items():
        if not get_peer(name).supports(workload):
            continue
        try:
            where = ("--peer", name, "--workload", workload.name, "--path", str(path))
            ask(python, threads, "prepare", *where)
            workers.append(Worker(name, python, workload.name, path, threads))
            note(f"  {name} loaded")
        except WorkerError as error:
            note(f"  {name} failed and is left out:\n{error}")
    return workers


def measure_imports(installed: Installed, threads: int, results: list[Result]) -> dict[str, Any]:
    """Seconds to import each library, by kind of workload, for those that have run."""
    imports: dict[str, Any] = {}
    for result in results:
        kind = import_kind(WORKLOADS[result.workload])
        by_kind = imports.setdefault(result.peer, {})
        if kind not in by_kind:
            statement = get_peer(result.peer).IMPORTS[kind]
            by_kind[kind] = import_seconds(installed[result.peer][0], threads, statement)
    return imports


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

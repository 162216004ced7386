"""The libraries that are timed: one small adapter each, all with the same members.

An adapter must be importable without its library; only ``prepare`` and ``load`` import that. The
runner that ``load`` gives holds the model and the workload's input in the library's own form, so
that ``run`` times the library and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, cast

from ..workloads import Workload

#: Name on the command line -> module; the first is what the others are compared with.
PEERS = {
    "ours": "ours",
    "ours, static": "ours_static",
    "transformers": "torch_transformers",
    "onnxruntime": "onnxruntime_peer",
    "ctranslate2": "ctranslate2_peer",
    "llama.cpp": "llama_cpp",
}
SHORT_SECONDS = 2.0


class Runner(ABC):
    #: Which of the library's ways was taken, or in which precision.
    detail: str

    @abstractmethod
    def run(self) -> dict[str, float]:
        """Seconds of one run: ``forward`` for encoders, ``prefill`` and ``decode`` for decoders,
        ``generate`` for many texts."""

    @abstractmethod
    def output(self) -> list[float]:
        """What the last run gave: some hidden values of an encoder, new tokens of a decoder, those
        of the first text."""

    def warm_up(self) -> None:
        """What has to run before times are taken; the library's fastest way is chosen here."""
        self.run()


class Peer(Protocol):
    #: What must be importable, and the distributions whose versions are reported.
    MODULES: tuple[str, ...]
    DISTRIBUTIONS: tuple[str, ...]
    #: What a program that uses the library for this kind of workload imports.
    IMPORTS: Mapping[str, str]

    def supports(self, workload: Workload) -> bool: ...
    def prepare(self, workload: Workload, path: Path) -> None:
        """Converts the checkpoint, untimed, unless that was done."""

    def load(self, workload: Workload, path: Path, threads: int) -> Runner: ...


def get_peer(name: str) -> Peer:
    return cast(Peer, importlib.import_module(f".{PEERS[name]}", __name__))


def available(peer: Peer) -> dict[str, str] | None:
    """Versions by distribution, or None where the library is not installed."""
    for module in peer.MODULES:
        try:
            if importlib.util.find_spec(module) is None:
                return None
        except ImportError:
            return None
    return {name: installed_version(name) for name in peer.DISTRIBUTIONS}


def installed_version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "source tree"


def fastest(run: Callable[[str], float], ways: tuple[str, ...]) -> str:
    """The fastest of ``ways``: of short runs the second counts, the first sets things up."""
    seconds = {}
    for way in ways:
        seconds[way] = run(way)
        if seconds[way] < SHORT_SECONDS:
            seconds[way] = run(way)
    return min(ways, key=lambda way: seconds[way])


def first_values(row: object) -> list[float]:
    """Eight values of a hidden state, to see that two libraries computed the same thing."""
    return [float(value) for value in row[:8]]  # type: ignore[index]

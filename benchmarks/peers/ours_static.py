"""This package without continuous batching: what the same kernels give to padded batches.

A batch's prompts are padded to its longest one, and all its texts go on until the longest is
done, as a padded batch does; only then comes the next batch. The padding's ids are drawn, since
equal ones would be found to be a common beginning and computed once.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np

from ..workloads import BATCH, Workload
from . import ours

MODULES = ours.MODULES
DISTRIBUTIONS = ours.DISTRIBUTIONS
IMPORTS = ours.IMPORTS


def supports(workload: Workload) -> bool:
    return workload.kind == "texts"


def prepare(workload: Workload, path: Path) -> None:
    """The checkpoint is in the package's own format."""


def load(workload: Workload, path: Path, threads: int) -> Static:
    from curated_transformers import _core

    _core.set_num_threads(threads)
    return Static(workload, path)


class Static(ours.Texts):
    def __init__(self, workload: Workload, path: Path) -> None:
        super().__init__(workload, path)
        rng = np.random.default_rng(4)
        self.batches = []
        for rows in workload.batches():
            longest = max(workload.lengths[row] for row in rows)
            padding = rng.integers(10, workload.config["vocab_size"], (len(rows), longest))
            padded = [
                np.r_[padding[i, workload.lengths[row] :], self.prompts[row]]
                for i, row in enumerate(rows)
            ]
            self.batches.append((padded, max(workload.new_lengths[row] for row in rows)))

    def run(self) -> dict[str, float]:
        from curated_transformers import _core

        start = perf_counter()
        for prompts, n in self.batches:
            session = _core.Session(
                self.model.core, max_slots=BATCH, max_batch_tokens=sum(map(len, prompts))
            )
            for prompt in prompts:
                session.add(prompt, max_pieces=n)
            session.run()
        return {"generate": perf_counter() - start}

    def output(self) -> list[float]:
        return []  # padding in front that is computed as if it were text changes what follows

"""What is run, the most telling first: time may end before the list does."""

from __future__ import annotations

from dataclasses import dataclass

from .shapes import ModelShape

OURS, EAGER, STATIC, BNB = "ours", "transformers", "transformers static", "bitsandbytes"

#: Bits that a value of a layer's matrix takes: codes, and f32 scales of 64 values.
BITS = {"bf16": 16.0, "int8-0.0": 8.0, "int8-6.0": 8.0}
BITS |= dict.fromkeys(("nf4", "nf4-double", "fp4", "fp4-double"), 4.5)

#: By importance: pairs of a library and a form of the weights.
DECODERS = (
    ((OURS, "bf16"), (OURS, "nf4"), (OURS, "int8-6.0")),
    ((EAGER, "bf16"), (BNB, "nf4"), (BNB, "int8-6.0")),
    ((OURS, "int8-0.0"), (OURS, "nf4-double"), (OURS, "fp4"), (OURS, "fp4-double")),
    ((STATIC, "bf16"),),
    ((BNB, "int8-0.0"), (BNB, "nf4-double"), (BNB, "fp4"), (BNB, "fp4-double")),
)
ENCODERS = ((OURS, "bf16"), (EAGER, "bf16"), (STATIC, "bf16"))


@dataclass(frozen=True)
class Job:
    """One process: a library loads a shape in a form, and runs all measurements of it."""

    shape: ModelShape
    peer: str
    form: str

    def __str__(self) -> str:
        return f"{self.shape.name} {self.form}, {self.peer}"


def plan(shapes: list[ModelShape]) -> list[Job]:
    decoders = [shape for shape in shapes if shape.kind == "decoder"]
    encoders = [shape for shape in shapes if shape.kind == "encoder"]
    jobs: list[Job] = []
    for tier, pairs in enumerate(DECODERS):
        jobs += [Job(shape, *pair) for shape in decoders for pair in pairs]
        if tier == 1:
            jobs += [Job(shape, *pair) for shape in encoders for pair in ENCODERS]
    return jobs

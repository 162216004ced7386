"""``encode``: one vector a text, into a file, or compared with each other."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from ..models import AutoEncoder
from . import options as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_model(parser)
    parser.add_argument(
        "texts",
        metavar="TEXT",
        nargs="*",
        help="without any, each line of standard input is one",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE.npy",
        help="write the vectors, [texts, width] in float32; without it, print how similar the "
        "texts are",
    )
    parser.add_argument("--pooling", choices=("mean", "cls", "max"), help="default: as published")
    parser.add_argument("--max-length", type=int, metavar="N", help="the most pieces of a text")
    parser.add_argument("--no-normalize", action="store_true", help="keep the vectors' lengths")
    shared.add_placement(parser)


def run(options: argparse.Namespace) -> None:
    texts = options.texts or shared.read_lines()
    if not texts:
        raise ValueError("there are no texts")
    if options.no_normalize and options.output is None:
        raise ValueError("--no-normalize has no effect on similarities; give an --output")
    encoder = shared.load(AutoEncoder, options)
    vectors = encoder.encode(
        texts,
        pooling=options.pooling,
        normalize=not options.no_normalize,
        max_length=options.max_length,
        progress=options.output is not None and sys.stderr.isatty(),
    )
    if options.output is not None:
        with open(options.output, "wb") as file:
            np.save(file, vectors)
        return
    for number, (row, text) in enumerate(zip(vectors @ vectors.T, texts, strict=True), 1):
        print(f"{number:<4}" + "".join(f"{value:6.2f} " for value in row), text)

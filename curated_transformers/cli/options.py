"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..checkpoint import is_gguf
from ..generation import GeneratorConfig, GreedyGeneratorConfig, SampleGeneratorConfig


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model, and how it is loaded."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, a GGUF file, or the name of a repository on the Hugging Face Hub",
    )
    parser.add_argument("--revision", metavar="R", default="main", help="branch, tag or commit")


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Where the model runs, and in which element type."""
    parser.add_argument("--device", metavar="D", help="where the model runs (default: cpu)")
    parser.add_argument("--dtype", metavar="T", help="float32, float16 or bfloat16")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How pieces are chosen."""
    parser.add_argument("-n", "--max-pieces", type=int, metavar="N", help="the most new pieces")
    parser.add_argument(
        "-t",
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw pieces at this temperature; 0, the default: always the most probable one",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K most probable")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest P")
    parser.add_argument(
        "--min-p", type=float, metavar="P", help="draw from those with P of the largest probability"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="draw the same text again")
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="divide the logits of pieces that were there; 1: none",
    )
    parser.add_argument(
        "--presence-penalty",
        type=float,
        metavar="A",
        help="subtract A from the logits of pieces that were generated",
    )
    parser.add_argument(
        "--frequency-penalty",
        type=float,
        metavar="A",
        help="subtract A as often as a piece was generated",
    )
    parser.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="end a text before TEXT; may be given several times",
    )


def generator_config(options: argparse.Namespace) -> GeneratorConfig:
    """The configuration that the arguments of ``add_sampling`` stand for.

    Raises ``ValueError`` for what would have no effect, or cannot be.
    """
    both = _given(options, "stop", "repetition_penalty", "presence_penalty", "frequency_penalty")
    drawn = _given(options, "top_k", "top_p", "min_p", "seed")
    if options.temperature != 0:
        return SampleGeneratorConfig(
            max_generated_pieces=options.max_pieces,
            temperature=options.temperature,
            **both,
            **drawn,
        )
    for name in drawn:
        option = name.replace("_", "-")
        raise ValueError(f"--{option} has no effect without a --temperature above 0")
    return GreedyGeneratorConfig(max_generated_pieces=options.max_pieces, **both)


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def load(auto: Any, options: argparse.Namespace) -> Any:
    """What an Auto class makes of the model."""
    placement = {"device": options.device, "dtype": options.dtype}
    path = local_path(options.model)
    if path is not None:
        return auto.from_path(path, **placement)
    return auto.from_hf_hub(name=options.model, revision=options.revision, **placement)


def local_path(model: str) -> Path | None:
    """The folder or file that is meant; None: a name on the Hub.

    Raises ``FileNotFoundError`` for what can only be a path and does not exist.
    """
    path = Path(model).expanduser()
    if path.is_dir() or is_gguf(path):
        if path.exists():
            return path
    elif path.exists():
        raise ValueError(f"{model} is neither a folder nor a GGUF file")
    looks_like_path = model.startswith((".", "~", os.sep)) or model.count("/") > 1
    if looks_like_path or path.suffix == ".gguf":
        raise FileNotFoundError(f"{model} does not exist")
    return None


def read_lines() -> list[str]:
    """The lines of standard input."""
    return [line.rstrip("\n") for line in sys.stdin]

"""``generate``: continues texts; one of them as it comes, several together."""

from __future__ import annotations

import argparse
import json
import sys

from ..generation import AutoGenerator
from . import options as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_model(parser)
    parser.add_argument(
        "prompts",
        metavar="PROMPT",
        nargs="*",
        help="texts to continue; without any, all of standard input is one",
    )
    parser.add_argument("--chat", action="store_true", help="each prompt is a message to answer")
    parser.add_argument("--system", metavar="TEXT", help="with --chat: the system message")
    parser.add_argument("--lines", action="store_true", help="each line of standard input is one")
    parser.add_argument("--json", action="store_true", help='lines of {"prompt": ..., "text": ...}')
    shared.add_sampling(parser)
    shared.add_placement(parser)


def run(options: argparse.Namespace) -> None:
    config = shared.generator_config(options)
    prompts = _prompts(options)
    generator = shared.load(AutoGenerator, options)
    inputs = [_messages(options.system, prompt) if options.chat else prompt for prompt in prompts]
    if len(prompts) == 1 and not options.json:
        for text in generator.stream(inputs[0], config):
            print(text, end="", flush=True)
        print()
        return
    if options.chat:
        config = generator.complete(config)
        ids = [generator.encode(messages) for messages in inputs]
        texts = generator.generator.generate_ids(ids, config, progress=_progress())
    else:
        texts = generator(prompts, config, progress=_progress())
    for prompt, text in zip(prompts, texts, strict=True):
        if options.json:
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
        else:
            print(f"==> {prompt} <==\n{text}\n")


def _prompts(options: argparse.Namespace) -> list[str]:
    if options.system is not None and not options.chat:
        raise ValueError("--system has no effect without --chat")
    if options.prompts and options.lines:
        raise ValueError("--lines reads prompts from standard input; there are others, too")
    if options.prompts:
        return list(options.prompts)
    if options.lines:
        return shared.read_lines()
    return [sys.stdin.read()]


def _messages(system: str | None, prompt: str) -> list[dict[str, str]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def _progress() -> bool:
    return sys.stderr.isatty()

"""``chat``: a conversation, whose replies appear as they are generated."""

from __future__ import annotations

import argparse
import contextlib
import sys

from ..generation import AutoGenerator, DefaultGenerator, GeneratorConfig
from . import options as shared

HELP = "Ctrl-C stops a reply, Ctrl-D ends the conversation."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    shared.add_sampling(parser)
    shared.add_placement(parser)


def run(options: argparse.Namespace) -> None:
    config = shared.generator_config(options)
    generator = shared.load(AutoGenerator, options)
    conversation = Conversation(generator, config, options.system)
    conversation.check()
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (gives input() its line editing)
        print(HELP, file=sys.stderr)
    while (message := _next_message()) is not None:
        if message.strip():
            conversation.answer(message)


class Conversation:
    """What has been said so far, and who answers."""

    def __init__(
        self, generator: DefaultGenerator, config: GeneratorConfig, system: str | None
    ) -> None:
        self._generator = generator
        self._config = config
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def check(self) -> None:
        """Raises ``ValueError`` when the model cannot chat."""
        self._generator.encode([*self.messages, {"role": "user", "content": "x"}])

    def answer(self, message: str) -> None:
        """Prints the reply. One that Ctrl-C stops stays as far as it came; a message that cannot be
        answered, as the conversation has become too long, is told and forgotten."""
        self.messages.append({"role": "user", "content": message})
        said = ""
        try:
            for text in self._generator.stream(self.messages, self._config):
                print(text, end="", flush=True)
                said += text
        except KeyboardInterrupt:
            print(" [stopped]", end="")
        except ValueError as error:
            self.messages.pop()
            print(f"cannot answer: {error}", file=sys.stderr)
            return
        print(flush=True)
        self.messages.append({"role": "assistant", "content": said})


def _next_message() -> str | None:
    """The next line; None at the end. Ctrl-C drops what was typed."""
    while True:
        try:
            if sys.stdin.isatty():
                return input("> ")
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        except KeyboardInterrupt:
            print(f"\n{HELP}", file=sys.stderr)
        except EOFError:
            print()
            return None

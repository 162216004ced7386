"""The command line: try a model, look at one, see what is cached (`docs/command_line.md`).

A subcommand is a module with ``add_arguments`` and ``run``, imported when it is chosen. What goes
wrong is one line on standard error: exit status 1, or 2 for arguments that make no sense.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

PROGRAM = "curated-transformers"

_COMMANDS = {
    "generate": "continue texts, or answer them as chat messages",
    "chat": "talk to a model",
    "encode": "turn texts into vectors",
    "info": "what a model is and whether it is supported, without loading its weights",
    "cache": "the repositories in the local cache of the Hugging Face Hub",
}

#: What users can cause; everything else is a bug, whose traceback is wanted.
_EXPECTED = (OSError, ValueError, IndexError, RuntimeError, MemoryError, ImportError)

_INTERRUPTED = 130  # as shells say for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status. Raises ``SystemExit`` where argparse does: for
    wrong arguments, ``--help`` and ``--version``."""
    options = _parse(sys.argv[1:] if arguments is None else list(arguments))
    # They are None where whoever started the program has closed them.
    sys.stdin, sys.stdout = sys.stdin or io.StringIO(), sys.stdout or io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _command(options.command).run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _EXPECTED as error:
        _say(f"error: {_one_line(error)}")
        return 1
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Transformer inference.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    chosen = parser.parse_args(arguments[:1]).command
    # A parser of its own, as only that lets options stand between texts; and the other commands
    # need not be imported.
    command = argparse.ArgumentParser(
        prog=f"{PROGRAM} {chosen}", description=f"{_COMMANDS[chosen]}.".capitalize()
    )
    command.set_defaults(command=chosen)
    _command(chosen).add_arguments(command)
    return command.parse_intermixed_args(arguments[1:])


def _command(name: str) -> Any:
    return import_module(f".{name}", __package__)


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .. import __version__

        print(f"{PROGRAM} {__version__}")
        parser.exit()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {_one_line(message)}")


def _one_line(message: BaseException | str) -> str:
    text = " ".join(str(message).split())
    return text or type(message).__name__


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)

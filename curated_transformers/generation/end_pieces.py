"""The pieces with which a model's authors let a text end, beside the tokenizer's own end piece.

Chat models end a reply with another piece than a text, and list both: in generation_config.json,
in older repositories in config.json, in GGUF files by keys of their own.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from ..checkpoint import GGUFFile
from ..repository import Repository

#: Files in the order in which they are asked; the first with the key says all.
_FILES = ("generation_config.json", "config.json")
_GGUF_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def end_ids_of_repo(repo: Repository) -> frozenset[int]:
    """``eos_token_id`` of a repository: one id, a list of them, or none.

    Raises ``ValueError`` for anything else, and for a file that is not a JSON object.
    """
    for name in _FILES:
        if not repo.file(name).is_there():
            continue
        value = repo.json_file(name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if not all(_is_id(one) for one in ids):
            raise ValueError(
                f"{repo.pretty_path(name)}: `eos_token_id` must be an id or a list of ids, "
                f"is {value!r:.80}"
            )
        return frozenset(ids)
    return frozenset()


def end_ids_of_gguf(file: GGUFFile) -> frozenset[int]:
    """The ends of a text, a turn and a message in a GGUF file."""
    ids = (file.metadata.get(f"tokenizer.ggml.{key}") for key in _GGUF_KEYS)
    return frozenset(one for one in ids if _is_id(one))


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0

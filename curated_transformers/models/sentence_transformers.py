"""What a repository made by sentence-transformers says about pooling.

`modules.json` lists the steps from text to vector; the first is the model itself, `1_Pooling` and
`2_Normalize` are what ``encode`` does. Others (a dense layer, for example) are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ..repository import Repository

Pooling = Literal["mean", "cls", "max"]

_POOLINGS: dict[Any, Pooling] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "max": "max",
    "max_tokens": "max",
}


@dataclass(frozen=True)
class SentenceConfig:
    """How texts become vectors. ``None``: the repository does not say."""

    pooling: Pooling | None = None
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""


def read_sentence_config(repo: Repository | None, pooling: Pooling | None) -> SentenceConfig:
    """Reads `modules.json` and the files that it names.

    A ``pooling`` that is given stands for all steps after the model. Without it, raises
    ``ValueError`` for steps that are not supported, by name; always for broken files.
    """
    modules = _json(repo, "modules.json")
    if repo is None or not isinstance(modules, list):
        return SentenceConfig(pooling)
    for module in [] if pooling else modules:
        where = repo.pretty_path("modules.json")
        if not isinstance(module, dict):
            raise ValueError(f"{where}: a step must be an object, is {module!r:.80}")
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(repo, f"{module.get('path')}/config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ValueError(
                f"{where}: the step `{kind}` is not supported; pool the hidden states yourself, or "
                "give `pooling`"
            )
    transformer = _object(repo, "sentence_bert_config.json")
    length = transformer.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        where = repo.pretty_path("sentence_bert_config.json")
        raise ValueError(f"{where}: `max_seq_length` must be a length, is {length!r:.80}")
    return SentenceConfig(
        pooling, length, bool(transformer.get("do_lower_case", False)), _prompt(repo)
    )


def _prompt(repo: Repository) -> str:
    path = "config_sentence_transformers.json"
    config = _object(repo, path)
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if not name:
        return ""
    prompt = prompts.get(name, "") if isinstance(name, str) and isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise ValueError(
            f"{repo.pretty_path(path)}: `default_prompt_name` must name one of `prompts`, which "
            f"are texts; it is {name!r:.80}"
        )
    return prompt


def _pooling(repo: Repository, path: str) -> Pooling:
    config = _object(repo, path)
    mode = config.get("pooling_mode")  # the only key in newer files
    if mode is not None:
        chosen = [mode]
    else:
        chosen = [
            key.removeprefix("pooling_mode_")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    if len(chosen) != 1 or not isinstance(chosen[0], str) or chosen[0] not in _POOLINGS:
        raise ValueError(
            f"{repo.pretty_path(path)}: pooling by {chosen or 'nothing'} is not supported, only by "
            "one of mean, cls, max"
        )
    return _POOLINGS[chosen[0]]


def _object(repo: Repository, path: str) -> dict[str, Any]:
    """A JSON object; without the file an empty one."""
    value = _json(repo, path)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{repo.pretty_path(path)}: not a JSON object but {type(value).__name__}")
    return value or {}


def _json(repo: Repository | None, path: str) -> Any:
    if repo is None or not (file := repo.file(path)).is_there():
        return None
    with file.open(mode="r", encoding="utf-8") as text:
        try:
            return json.load(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{repo.pretty_path(path)}: not valid JSON: {error}") from None

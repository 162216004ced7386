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
    ``ValueError`` for steps that are not supported, by name.
    """
    modules = _json(repo, "modules.json")
    if repo is None or not isinstance(modules, list):
        return SentenceConfig(pooling)
    for module in [] if pooling else modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(repo, f"{module['path']}/config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ValueError(
                f"{repo.pretty_path('modules.json')}: the step `{kind}` is not supported; pool the "
                "hidden states yourself, or give `pooling`"
            )
    transformer = _json(repo, "sentence_bert_config.json") or {}
    prompts = _json(repo, "config_sentence_transformers.json") or {}
    default = prompts.get("default_prompt_name")
    return SentenceConfig(
        pooling,
        transformer.get("max_seq_length"),
        bool(transformer.get("do_lower_case", False)),
        (prompts.get("prompts") or {}).get(default, "") if default else "",
    )


def _pooling(repo: Repository, path: str) -> Pooling:
    config = _json(repo, path) or {}
    mode = config.get("pooling_mode")  # the only key in newer files
    if mode is not None:
        chosen = [mode]
    else:
        chosen = [
            key.removeprefix("pooling_mode_")
            for key, value in config.items()
            if key.startswith("pooling_mode_") and value is True
        ]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise ValueError(
            f"{repo.pretty_path(path)}: pooling by {chosen or 'nothing'} is not supported, only by "
            "one of mean, cls, max"
        )
    return _POOLINGS[chosen[0]]


def _json(repo: Repository | None, path: str) -> Any:
    if repo is None or not (file := repo.file(path)).is_there():
        return None
    with file.open(mode="r", encoding="utf-8") as text:
        try:
            return json.load(text)
        except ValueError as error:
            raise ValueError(f"{repo.pretty_path(path)}: not valid JSON: {error}") from None

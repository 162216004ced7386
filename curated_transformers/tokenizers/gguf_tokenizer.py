"""The tokenizer inside a GGUF file, rebuilt for the `tokenizers` library from the file's metadata.

Only byte-level BPE ("gpt2"). How text is split before merging is not in the file, only the name of
a rule; the table below holds the rules that original tokenizers with these names use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..checkpoint.gguf import GGUFFile

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import pre_tokenizers, processors

# `tokenizer.ggml.token_type`
_CONTROL, _USER_DEFINED = 3, 4

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How Llama 3 and Qwen 2 split; they differ in the number of digits that stay together.
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"

#: `tokenizer.ggml.pre` -> rule: "gpt2" is the regular expression of GPT-2, "digits" the same after
#: every digit was set apart, anything else a regular expression.
PRE_TOKENIZERS = {
    "default": "gpt2",
    "gpt-2": "gpt2",
    "codeshell": "digits",
    "refact": "digits",
    "smollm": "digits",
    "starcoder": "digits",
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
}
# Rules whose tokenizers take a whole word that is a piece before they merge, or normalize to NFC.
_WHOLE_WORDS = {_LLAMA3}
_NFC = {_QWEN2}


def read_gguf_tokenizer(path: str) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The tokenizer of a GGUF file, and what its tokenizer_config.json would say.

    Raises ``ValueError`` for missing or inconsistent metadata, ``NotImplementedError`` for a model
    or splitting rule that is not supported.
    """
    metadata = _Metadata(path, GGUFFile(path).metadata)
    model = metadata.get("model", str)
    if model != "gpt2":
        raise NotImplementedError(
            f"{path}: tokenizers of kind `{model}` (tokenizer.ggml.model) cannot be read yet, only "
            "`gpt2`; load the tokenizer from the model's original repository"
        )
    pieces = metadata.strings("tokens")
    engine = _byte_level_bpe(metadata, pieces)
    config = _tokenizer_config(metadata, pieces)
    post_processor = _post_processor(metadata, config)
    if post_processor is not None:
        engine.post_processor = post_processor
    return engine, config


class _Metadata:
    """The keys below `tokenizer.ggml.` with their types checked."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(f"tokenizer.ggml.{key}", default)
        if type(value) is not kind and value is not default:
            raise self.error(key, f"must be {kind.__name__}, is {value!r:.40}")
        return value

    def strings(self, key: str) -> list[str]:
        values: list[str] = self.get(key, list)
        if not values or not all(type(value) is str for value in values):
            raise self.error(key, "must be a list of strings")
        return values

    def error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.path}: tokenizer.ggml.{key} {what}")


def _byte_level_bpe(metadata: _Metadata, pieces: list[str]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    rule = _splitting_rule(metadata)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise metadata.error("tokens", "holds a piece twice")
    merges = [merge.split(" ") for merge in metadata.strings("merges")]
    if any(len(pair) != 2 for pair in merges):
        raise metadata.error("merges", "must be pairs of pieces with a space between them")
    try:
        model = models.BPE(
            vocabulary,
            [(left, right) for left, right in merges],
            ignore_merges=rule in _WHOLE_WORDS,
        )
    except Exception as error:  # the library raises nothing more specific
        raise metadata.error("merges", f"does not fit the pieces: {error}") from None
    engine = Tokenizer(model)
    if rule in _NFC:
        engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = _pre_tokenizer(rule)
    engine.decoder = decoders.ByteLevel()
    _add_special_pieces(engine, metadata, pieces)
    return engine


def _splitting_rule(metadata: _Metadata) -> str:
    name = metadata.get("pre", str, "default")
    if name not in PRE_TOKENIZERS:
        raise NotImplementedError(
            f"{metadata.path}: tokenizer.ggml.pre `{name}` is not supported; supported: "
            + ", ".join(sorted(PRE_TOKENIZERS))
        )
    return PRE_TOKENIZERS[name]


def _pre_tokenizer(rule: str) -> pre_tokenizers.PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if rule == "gpt2":
        return ByteLevel(add_prefix_space=False, use_regex=True)
    if rule == "digits":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return Sequence(
        [
            Split(Regex(rule), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _add_special_pieces(
    engine: tokenizers.Tokenizer, metadata: _Metadata, pieces: list[str]
) -> None:
    from tokenizers import AddedToken

    kinds = metadata.get("token_type", list, [])
    if kinds and len(kinds) != len(pieces):
        raise metadata.error("token_type", f"has {len(kinds)} entries for {len(pieces)} pieces")
    for kind, add in (
        (_CONTROL, engine.add_special_tokens),
        (_USER_DEFINED, engine.add_tokens),
    ):
        special = kind == _CONTROL
        chosen = [piece for piece, of_kind in zip(pieces, kinds, strict=False) if of_kind == kind]
        add([AddedToken(piece, special=special, normalized=False) for piece in chosen])


def _tokenizer_config(metadata: _Metadata, pieces: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = metadata.get(f"{key}_token_id", int)
        if index is None:
            continue
        if not 0 <= index < len(pieces):
            raise metadata.error(f"{key}_token_id", f"{index} is outside of {len(pieces)} pieces")
        config[f"{name}_token"] = pieces[index]
    # Llama 3 begins every text with its bos piece, also where the file does not say so.
    adds_bos = metadata.get("pre", str, "default") in ("llama-bpe", "llama3", "llama-v3")
    config["add_bos_token"] = metadata.get("add_bos_token", bool, adds_bos)
    config["add_eos_token"] = metadata.get("add_eos_token", bool, False)
    templates = _chat_templates(metadata.values)
    if templates:
        config["chat_template"] = templates
    return config


def _chat_templates(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for named ones."""
    key = "tokenizer.chat_template"
    templates = {"default": values[key]} if key in values else {}
    for name in values:
        if name.startswith(f"{key}."):
            templates[name.removeprefix(f"{key}.")] = values[name]
    return [{"name": name, "template": template} for name, template in templates.items()]


def _post_processor(
    metadata: _Metadata, config: Mapping[str, Any]
) -> processors.TemplateProcessing | None:
    from tokenizers.processors import TemplateProcessing

    around = [name for name in ("bos", "eos") if config[f"add_{name}_token"]]
    special = []
    for name in around:
        if f"{name}_token" not in config:
            raise metadata.error(f"{name}_token_id", f"is missing, but add_{name}_token is set")
        piece_id = metadata.get(f"{name}_token_id", int)
        special.append({"id": name, "ids": [piece_id], "tokens": [config[f"{name}_token"]]})
    if not special:
        return None
    first = ["bos"] if "bos" in around else []
    last = ["eos"] if "eos" in around else []
    return TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *first, "$B", *last],
        special_tokens=special,
    )

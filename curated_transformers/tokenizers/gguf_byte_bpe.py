"""Byte-level BPE ("gpt2") from a GGUF file.

How text is split before merging is not in the file, only the name of a rule; the table below holds
the rules that original tokenizers with these names use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gguf_metadata import GGUFMetadata

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import pre_tokenizers

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How Llama 3 and Qwen 2 split; they differ in the number of digits that stay together.
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"

#: `tokenizer.ggml.pre` -> rule: "gpt2" is the regular expression of GPT-2, "neox" the same after
#: normalization, "digits" the same after every digit was set apart, "falcon" the same after
#: punctuation was, anything else a regular expression.
PRE_TOKENIZERS = {
    "default": "gpt2",
    "gpt-2": "gpt2",
    "phi-2": "gpt2",
    "mpt": "neox",
    "olmo": "neox",
    "falcon": "falcon",
    "codeshell": "digits",
    "refact": "digits",
    "smollm": "digits",
    "starcoder": "digits",
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
# Rules whose tokenizers take a whole word that is a piece before they merge, or normalize to NFC.
_WHOLE_WORDS = {_LLAMA3}
_NFC = {_QWEN2, "neox"}


def byte_bpe(metadata: GGUFMetadata, pieces: list[str]) -> tokenizers.Tokenizer:
    """The engine, as yet without special pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    rule = _splitting_rule(metadata)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
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
    return engine


def _splitting_rule(metadata: GGUFMetadata) -> str:
    name = metadata.get("pre", str, "default")
    if name not in PRE_TOKENIZERS:
        raise NotImplementedError(
            f"{metadata.path}: tokenizer.ggml.pre `{name}` is not supported; supported: "
            + ", ".join(sorted(PRE_TOKENIZERS))
        )
    return PRE_TOKENIZERS[name]


def _pre_tokenizer(rule: str) -> pre_tokenizers.PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Sequence, Split

    if rule in ("gpt2", "neox"):
        return ByteLevel(add_prefix_space=False, use_regex=True)
    if rule == "digits":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if rule == "falcon":
        return Sequence(
            [
                Punctuation(behavior="contiguous"),
                ByteLevel(add_prefix_space=False),
                Digits(individual_digits=False),
                Split(Regex("[0-9][0-9][0-9]"), behavior="isolated"),
            ]
        )
    return Sequence(
        [
            Split(Regex(rule), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )

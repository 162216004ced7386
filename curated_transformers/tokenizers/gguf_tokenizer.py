"""The tokenizer inside a GGUF file, rebuilt for the `tokenizers` library from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..checkpoint.gguf import GGUFFile
from .gguf_byte_bpe import byte_bpe
from .gguf_metadata import CONTROL, UNKNOWN, USER_DEFINED, GGUFMetadata
from .gguf_sentencepiece import sentencepiece_bpe
from .gguf_wordpiece import original_pieces, wordpiece

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import processors


@dataclass(frozen=True)
class _Kind:
    """A kind of tokenizer and what its files leave unsaid."""

    engine: Callable[[GGUFMetadata, list[str]], tokenizers.Tokenizer]
    #: Name in a tokenizer_config.json -> name in the file, and the id where the file has none.
    special: Mapping[str, tuple[str, int | None]]
    #: The names of the pieces around a text, and whether they are added where the file is silent.
    first: str = "bos"
    last: str = "eos"
    adds_first: bool = False
    adds_last: bool = False
    #: Special pieces besides control pieces.
    special_types: frozenset[int] = frozenset({CONTROL})
    original_pieces: Callable[[GGUFMetadata, list[str]], list[str]] | None = None
    cleans_up_spaces: bool = False


KINDS = {
    "gpt2": _Kind(
        byte_bpe,
        {
            "bos": ("bos", None),
            "eos": ("eos", None),
            "unk": ("unknown", None),
            "pad": ("padding", None),
        },
    ),
    "llama": _Kind(
        sentencepiece_bpe,
        {"bos": ("bos", 1), "eos": ("eos", 2), "unk": ("unknown", 0), "pad": ("padding", None)},
        adds_first=True,
        special_types=frozenset({CONTROL, UNKNOWN}),
    ),
    "bert": _Kind(
        wordpiece,
        {
            "cls": ("cls", 101),
            "sep": ("seperator", 102),  # as the format spells it
            "unk": ("unknown", 100),
            "pad": ("padding", 0),
            "mask": ("mask", 103),
        },
        first="cls",
        last="sep",
        adds_first=True,
        adds_last=True,
        original_pieces=original_pieces,
        cleans_up_spaces=True,
    ),
}


def read_gguf_tokenizer(file: GGUFFile) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """The tokenizer of a GGUF file, and what its tokenizer_config.json would say.

    Raises ``ValueError`` for missing or inconsistent metadata, ``NotImplementedError`` for a model
    or splitting rule that is not supported.
    """
    metadata = GGUFMetadata(file.path, file.metadata)
    name = metadata.get("model", str)
    if name not in KINDS:
        raise NotImplementedError(
            f"{file.path}: tokenizers of kind `{name}` (tokenizer.ggml.model) cannot be read yet, "
            f"only {', '.join(f'`{kind}`' for kind in KINDS)}; load the tokenizer from the model's "
            "original repository"
        )
    kind = KINDS[name]
    pieces = metadata.pieces()
    if kind.original_pieces:
        pieces = kind.original_pieces(metadata, pieces)
    engine = kind.engine(metadata, pieces)
    _add_special_pieces(engine, metadata, kind, pieces)
    ids = {
        name: index
        for name, (key, default) in kind.special.items()
        if (index := metadata.piece_id(key, len(pieces), default)) is not None
    }
    config: dict[str, Any] = {f"{name}_token": pieces[index] for name, index in ids.items()}
    # Llama 3 begins every text with its bos piece, also where the file does not say so.
    is_llama3 = metadata.get("pre", str, "default") in ("llama-bpe", "llama3", "llama-v3")
    config["add_bos_token"] = metadata.get("add_bos_token", bool, kind.adds_first or is_llama3)
    config["add_eos_token"] = metadata.get("add_eos_token", bool, kind.adds_last)
    config["clean_up_tokenization_spaces"] = kind.cleans_up_spaces
    templates = _chat_templates(metadata.values)
    if templates:
        config["chat_template"] = templates
    post_processor = _post_processor(metadata, kind, ids, config)
    if post_processor is not None:
        engine.post_processor = post_processor
    return engine, config


def _add_special_pieces(
    engine: tokenizers.Tokenizer, metadata: GGUFMetadata, kind: _Kind, pieces: list[str]
) -> None:
    from tokenizers import AddedToken

    types = metadata.piece_types(len(pieces))
    swallow = _swallows_spaces(metadata)
    for of_types, add, special in (
        (kind.special_types, engine.add_special_tokens, True),
        ({USER_DEFINED}, engine.add_tokens, False),
    ):
        chosen = [piece for piece, type in zip(pieces, types, strict=True) if type in of_types]
        add(
            [
                AddedToken(piece, special=special, normalized=False, rstrip=swallow(piece))
                for piece in chosen
            ]
        )


def _swallows_spaces(metadata: GGUFMetadata) -> Callable[[str], bool]:
    """Whether a special piece takes the white space behind it, which no file says: those of Phi-3
    do, apart from three."""
    is_phi3 = metadata.values.get("general.architecture") == "phi3"
    applies = is_phi3 and metadata.get("model", str) == "llama"
    return lambda piece: applies and piece not in ("<unk>", "<s>", "<|endoftext|>")


def _chat_templates(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for named ones."""
    key = "tokenizer.chat_template"
    templates = {"default": values[key]} if key in values else {}
    for name in values:
        if name.startswith(f"{key}."):
            templates[name.removeprefix(f"{key}.")] = values[name]
    return [{"name": name, "template": template} for name, template in templates.items()]


def _post_processor(
    metadata: GGUFMetadata, kind: _Kind, ids: Mapping[str, int], config: Mapping[str, Any]
) -> processors.TemplateProcessing | None:
    """Puts pieces around a text. Between two texts of a pair stand those that are around each; the
    second text of WordPiece goes without the first of them and is of type 1."""
    from tokenizers.processors import TemplateProcessing

    first = [kind.first] if config["add_bos_token"] else []
    last = [kind.last] if config["add_eos_token"] else []
    for name, says in ((first, "add_bos_token"), (last, "add_eos_token")):
        if name and name[0] not in ids:
            key = kind.special[name[0]][0]
            raise metadata.error(f"{key}_token_id", f"is missing, but {says} is set")
    if not first and not last:
        return None
    pair = [*first, "$A", *last, *first, "$B", *last]
    if kind.first == "cls":
        pair = [*first, "$A", *last, "$B:1", *(f"{name}:1" for name in last)]
    return TemplateProcessing(
        single=[*first, "$A", *last],
        pair=pair,
        special_tokens=[
            {"id": name, "ids": [ids[name]], "tokens": [config[f"{name}_token"]]}
            for name in (*first, *last)
        ],
    )

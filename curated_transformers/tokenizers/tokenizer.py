"""The tokenizer for `tokenizer.json` and GGUF files, over the `tokenizers` library.

The library is imported when the first tokenizer is made, which takes longer than all our own
imports.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..checkpoint.gguf import GGUFFile
from ..repository.repository import Repository, TokenizerRepository
from .base import PiecesWithIds, TokenizerBase, checked_batch, checked_ids
from .chat import (
    Message,
    check_messages,
    cut_behind_last_message,
    named_templates,
    render_chat,
)
from .chunks import InputChunks, MergedInputChunks, MergedSpecialPieceChunk, TextChunk
from .hf_hub import FromHF
from .spacing import clean_up_spaces

if TYPE_CHECKING:
    import tokenizers

__all__ = ["PiecesWithIds", "Tokenizer", "TokenizerBase"]

Self = TypeVar("Self", bound="Tokenizer")

MAX_ID = 2**32 - 1  # of the library


class Tokenizer(TokenizerBase, FromHF):
    """A tokenizer of the `tokenizers` library.

    ``tokenizer`` is the library's object; ``config`` and ``special_tokens_map`` what the files of
    these names hold. Padding and truncation that the object was configured with are not used:
    padding is what ``padded_tensor`` does. ``clean_up_spaces`` removes spaces before punctuation
    when decoding.
    """

    _REQUIRED_FILES = ("tokenizer.json",)
    _OPTIONAL_FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

    def __init__(
        self,
        *,
        tokenizer: tokenizers.Tokenizer,
        config: Mapping[str, Any] | None,
        special_tokens_map: Mapping[str, Any] | None,
        clean_up_spaces: bool = True,
    ) -> None:
        if tokenizer.padding is not None or tokenizer.truncation is not None:
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self._config = dict(config or {})
        self._special_tokens = dict(special_tokens_map or {})
        self._clean_up_spaces = clean_up_spaces
        self._chat_templates = named_templates(
            self._config.get("chat_template"), "tokenizer config"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tokenizer.get_vocab_size()} pieces)"

    # Loading.

    @classmethod
    def from_path(cls: type[Self], path: str | PathLike[str]) -> Self:
        """Loads the tokenizer in a folder, or the one inside a GGUF file.

        Raises ``FileNotFoundError`` for a path that does not exist or a folder without
        ``tokenizer.json``, ``ValueError`` for broken files, ``NotImplementedError`` for a kind of
        tokenizer that is not supported.
        """
        if Path(path).is_dir():
            return cls.from_dir(path)
        return cls._from_gguf(GGUFFile(path))

    @classmethod
    def _from_gguf(cls: type[Self], file: GGUFFile) -> Self:
        from .gguf_tokenizer import read_gguf_tokenizer

        engine, config = read_gguf_tokenizer(file)
        return cls(
            tokenizer=engine,
            config=config,
            special_tokens_map=None,
            clean_up_spaces=config["clean_up_tokenization_spaces"],
        )

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads the tokenizer in a repository.

        Raises ``FileNotFoundError`` without ``tokenizer.json``, ``OSError`` for broken files beside
        it.
        """
        files = TokenizerRepository(repo)
        where = repo.pretty_path("tokenizer.json")
        with files.tokenizer_json().open(mode="r", encoding="utf-8") as file:
            try:
                engine = _parse_engine(file.read(), where)
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not a valid tokenizer.json: {error}") from None
        config = files.tokenizer_config() if files.file("tokenizer_config.json").is_there() else {}
        has_map = files.file("special_tokens_map.json").is_there()
        template = files.chat_template()
        if template is not None:
            config = {**config, "chat_template": template}
        return cls(
            tokenizer=engine,
            config=config,
            special_tokens_map=files.special_tokens_map() if has_map else None,
        )

    @classmethod
    def from_json(
        cls: type[Self],
        tokenizer_json: str,
        config_json: str | None = None,
        special_tokens_map_json: str | None = None,
    ) -> Self:
        """Makes a tokenizer from the texts of its files. Raises ``ValueError`` for invalid JSON."""
        return cls(
            tokenizer=_parse_engine(tokenizer_json, "tokenizer_json"),
            config=_parse_json(config_json, "config_json"),
            special_tokens_map=_parse_json(special_tokens_map_json, "special_tokens_map_json"),
        )

    # Encoding and decoding.

    def encode(
        self,
        input: Iterable[str] | Iterable[InputChunks],
        *,
        add_special_pieces: bool = True,
    ) -> PiecesWithIds:
        """Tokenizes a batch of texts or of chunks.

        ``add_special_pieces`` adds those that the tokenizer puts around each text, such as the one
        that begins a sequence; around every text chunk, too. Special pieces that stand in the text
        as such are recognized always. Raises ``ValueError`` for elements of another type, for a
        single string, for a special piece chunk that is not in the vocabulary and for texts that
        are not Unicode.
        """
        texts, inputs = checked_batch(input)
        if texts:
            encodings = self._encode_batch(texts, add_special_pieces)
            return PiecesWithIds(
                ids=[encoding.ids for encoding in encodings],
                pieces=[encoding.tokens for encoding in encodings],
            )
        return self._encode_chunks(
            [chunks.merge_text_chunks() for chunks in inputs], add_special_pieces
        )

    def _encode_batch(self, texts: list[str], add_special_pieces: bool) -> list[Any]:
        for number, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"text {number} is not Unicode: {error}") from None
        try:
            encodings: list[Any] = self.tokenizer.encode_batch(
                texts, add_special_tokens=add_special_pieces
            )
        except Exception as error:
            if type(error) is not Exception:  # which is what the library raises for a bad file
                raise
            raise ValueError(f"the tokenizer's file is at fault: {error}") from None
        return encodings

    def decode(
        self, input: Iterable[Sequence[int]], *, skip_special_pieces: bool = True
    ) -> list[str]:
        """The texts of a batch of id sequences; unknown ids are left out. Raises ``TypeError`` for
        what is no batch of ids."""
        known = [[id for id in ids if 0 <= id <= MAX_ID] for ids in checked_ids(input)]
        texts: list[str] = self.tokenizer.decode_batch(
            known, skip_special_tokens=skip_special_pieces
        )
        return [clean_up_spaces(text) for text in texts] if self._clean_up_spaces else texts

    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece; None when the vocabulary lacks it."""
        piece_id: int | None = self.tokenizer.token_to_id(piece)
        return piece_id

    @property
    def eos_piece(self) -> str | None:
        """The piece that ends a text, as the special tokens map, else the config, names it."""
        return self._special_piece("eos_token")

    def _encode_chunks(
        self, inputs: list[MergedInputChunks], add_special_pieces: bool
    ) -> PiecesWithIds:
        texts = [
            chunk.text for chunks in inputs for chunk in chunks if isinstance(chunk, TextChunk)
        ]
        encodings: Iterator[Any] = iter(self._encode_batch(texts, add_special_pieces))
        batch = PiecesWithIds(ids=[], pieces=[])
        for chunks in inputs:
            ids: list[int] = []
            pieces: list[str] = []
            for chunk in chunks:
                if isinstance(chunk, MergedSpecialPieceChunk):
                    ids.append(self._special_piece_id(chunk.piece))
                    pieces.append(chunk.piece)
                else:
                    encoding = next(encodings)
                    ids += encoding.ids
                    pieces += encoding.tokens
            batch.ids.append(ids)
            batch.pieces.append(pieces)
        return batch

    def _special_piece_id(self, piece: str) -> int:
        piece_id = self.piece_to_id(piece)
        if piece_id is None:
            raise ValueError(f"Unknown special piece: {piece}")
        return piece_id

    # Conversations.

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that writes a conversation as a prompt, if the model has one."""
        return self._chat_templates.get("default")

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_last_message: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """Writes a conversation as the prompt that the model was trained on.

        ``messages`` are mappings with ``role`` and ``content``, oldest first.
        ``add_generation_prompt`` ends the prompt where the model's answer begins;
        ``continue_last_message`` ends it with the last message instead, which the model goes on
        with. ``chat_template`` is the name of one of the model's templates, or a template.
        Everything else becomes a variable of the template, such as ``tools``. Encode the result
        with ``add_special_pieces=False``, as it contains them.

        Raises ``ValueError`` when the model has no template, or its template refuses the
        conversation.
        """
        defaults = {
            key: self._special_piece(key) or "" for key in ("bos_token", "eos_token", "pad_token")
        }
        tools = variables.get("tools") is not None
        template = self._template(chat_template or ("tool_use" if tools else None))
        add_generation_prompt = add_generation_prompt and not continue_last_message
        prompt = render_chat(
            template,
            messages,
            {**defaults, "add_generation_prompt": add_generation_prompt, **variables},
        )
        return cut_behind_last_message(prompt, messages) if continue_last_message else prompt

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_last_message: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> PiecesWithIds:
        """A batch of one: the conversation as ``apply_chat_template`` writes it, tokenized once."""
        check_messages(messages)
        prompt = self.apply_chat_template(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_last_message=continue_last_message,
            chat_template=chat_template,
            **variables,
        )
        return self.encode([prompt], add_special_pieces=False)

    def _template(self, wanted: str | None) -> str:
        templates = self._chat_templates
        if wanted in templates:
            return templates[wanted]
        if wanted is not None and wanted != "tool_use":
            if "{" not in wanted:
                raise ValueError(f"No chat template `{wanted}`; there are: {sorted(templates)}")
            return wanted
        if "default" not in templates:
            raise ValueError(
                "The tokenizer has no default chat template; pass one as `chat_template`. "
                f"Named templates: {sorted(templates)}"
            )
        return templates["default"]

    def _special_piece(self, key: str) -> str | None:
        for source in (self._special_tokens, self._config):
            value = source.get(key)
            if isinstance(value, Mapping):
                value = value.get("content")
            if isinstance(value, str):
                return value
        return None


def _parse_json(text: str | None, source: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{source}: not a JSON object but {type(value).__name__}")
    return value


def _parse_engine(text: str, source: str) -> tokenizers.Tokenizer:
    import tokenizers

    try:
        engine = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"{source}: not a valid tokenizer.json: {error}") from None
    engine.no_padding()
    engine.no_truncation()
    return engine

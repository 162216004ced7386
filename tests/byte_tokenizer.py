"""A tokenizer of the `tokenizers` library with one piece for each byte, and an end piece.

What it decodes is known without it: the bytes, as UTF-8 with replacement characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curated_transformers.tokenizers import Tokenizer

EOS, EOS_ID = "<eos>", 256
N_PIECES = 257

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def byte_tokenizer(
    *, clean_up_spaces: bool = False, special: Sequence[str] = (), **config: Any
) -> Tokenizer:
    """``special`` are more special pieces, whose ids follow."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    engine = tokenizers.Tokenizer(models.BPE(vocab=_byte_vocabulary(), merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens([EOS, *special])
    return Tokenizer(
        tokenizer=engine,
        config={"eos_token": EOS, "chat_template": CHAT_TEMPLATE, **config},
        special_tokens_map=None,
        clean_up_spaces=clean_up_spaces,
    )


def _byte_vocabulary() -> dict[str, int]:
    """GPT-2's visible character for each byte: printable ones stand for themselves, the others for
    characters from 256 on. Ids are the bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return {chr(byte if byte in printable else next(others)): byte for byte in range(256)}

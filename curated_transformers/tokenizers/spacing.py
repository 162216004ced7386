"""Spaces that decoding removes: those that tokenizers of words put before punctuation."""

from __future__ import annotations

# In this order.
_REWRITTEN = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def clean_up_spaces(text: str) -> str:
    """The text as English is written."""
    for ugly, clean in _REWRITTEN:
        text = text.replace(ugly, clean)
    return text

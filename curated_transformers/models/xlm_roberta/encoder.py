"""XLM-RoBERTa is RoBERTa under another name."""

from __future__ import annotations

from ..roberta.encoder import RoBERTaEncoder


class XLMREncoder(RoBERTaEncoder):
    """XLM-RoBERTa: RoBERTa, trained on a hundred languages."""

    model_types = ("xlm-roberta",)
    hf_class = "XLMRoberta"

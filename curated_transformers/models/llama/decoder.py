"""Llama as data: config.json or GGUF metadata, specification, parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...checkpoint import GGUFFile
from ...layers.activations import Activation
from ..config import HFConfig
from ..module import DecoderModule, TransformerModule
from ..rotary import rope_parameters, rotary_frequencies, scale_frequencies
from ..spec import ParameterNames, TransformerSpec
from .config import LlamaConfig

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "vocab_size",
    "rms_norm_eps",
)

MODEL_NAMES = {
    "embed_tokens.weight": "piece_embeddings.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "head.weight",
}
_LAYER_MODULES = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "attention_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
LAYER_NAMES = {
    "input_layernorm.weight": "attention_input_norm.weight",
    "post_attention_layernorm.weight": "ffn_input_norm.weight",
    **{
        f"{name}.{part}": f"{role}.{part}"
        for name, role in _LAYER_MODULES.items()
        for part in ("weight", "bias")
    },
}
GGUF_MODEL_NAMES = {
    "token_embd.weight": "piece_embeddings.weight",
    "output_norm.weight": "output_norm.weight",
    "output.weight": "head.weight",
}
GGUF_LAYER_NAMES = {
    "attn_norm.weight": "attention_input_norm.weight",
    "ffn_norm.weight": "ffn_input_norm.weight",
    "attn_q.weight": "query.weight",
    "attn_k.weight": "key.weight",
    "attn_v.weight": "value.weight",
    "attn_output.weight": "attention_output.weight",
    "ffn_gate.weight": "ffn_gate.weight",
    "ffn_up.weight": "ffn_up.weight",
    "ffn_down.weight": "ffn_down.weight",
}


class Llama(TransformerModule):
    """What decoder and causal language model share."""

    model_types = ("llama",)
    gguf_architecture = "llama"

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> LlamaConfig:
        """config.json -> configuration. ``ValueError`` for options that are not supported."""
        hf = HFConfig(dict(hf_config), "Llama", REQUIRED)
        hf.refuse("pretraining_tp", 1, 2, 4)  # changes only the order of summation
        base, scaling = rope_parameters(hf, 10000.0)
        config = LlamaConfig(
            attention_probs_dropout_prob=hf.get("attention_dropout", 0.0),
            activation=Activation(hf["hidden_act"]),
            dtype=hf.dtype("float16"),
            hidden_width=hf["hidden_size"],
            intermediate_width=hf["intermediate_size"],
            rms_norm_eps=hf["rms_norm_eps"],
            n_query_heads=hf["num_attention_heads"],
            n_key_value_heads=hf.get("num_key_value_heads", hf["num_attention_heads"]),
            n_hidden_layers=hf["num_hidden_layers"],
            n_pieces=hf["vocab_size"],
            rotary_embedding_base=base,
            rotary_embedding_fraction=scaling.get("partial_rotary_factor", 1.0),
            head_width=hf.get("head_dim"),
            n_positions=hf.get("max_position_embeddings"),
            use_attention_bias=hf.get("attention_bias", False),
            use_ffn_bias=hf.get("mlp_bias", False),
        )
        config.rope_scaling = scaling
        return config

    @classmethod
    def spec_from_config(cls, config: LlamaConfig) -> TransformerSpec:
        """Configuration -> what the core runs."""
        layer = config.layer
        attention, ffn = layer.attention, layer.feedforward
        rotary = attention.rotary_embeddings
        assert rotary is not None
        width = int(rotary.rotary_fraction * config.head_width)
        return TransformerSpec(
            {
                "hidden_width": attention.hidden_width,
                "n_layers": layer.n_hidden_layers,
                "n_pieces": config.embedding.n_pieces,
                "max_positions": config.n_positions or 0,
                "norm_kind": "rms",
                "norm_eps": layer.layer_norm_eps,
                "attention_input_norm": 1,
                "ffn_input_norm": 1,
                "output_norm": 1,
                "n_heads": attention.n_query_heads,
                "n_kv_heads": attention.n_key_value_heads,
                "head_width": config.head_width,
                "qkv_bias": int(attention.use_bias),
                "attention_output_bias": int(attention.use_bias),
                "causal": 1,
                "rotary_width": width,
                "intermediate_width": ffn.intermediate_width,
                "activation": ffn.activation.core_name,
                "gated": 1,
                "ffn_bias": int(ffn.use_bias),
                "dtype": config.dtype,
            },
            scale_frequencies(rotary_frequencies(width, rotary.rotary_base), config.rope_scaling),
        )

    @classmethod
    def parameter_names(cls, config: LlamaConfig) -> ParameterNames:
        """Checkpoint names -> roles."""
        return ParameterNames(
            prefixes=("model.",),
            layer_prefix="layers.",
            model=MODEL_NAMES,
            layer=LAYER_NAMES,
            ignored=r"rotary_emb\.inv_freq$",
        )

    @classmethod
    def from_gguf_metadata(
        cls, file: GGUFFile
    ) -> tuple[LlamaConfig, TransformerSpec, ParameterNames]:
        """GGUF stores the rows of queries and keys for rotation by neighbouring pairs."""
        found = {
            key.removeprefix("llama."): value
            for key, value in file.metadata.items()
            if key.startswith("llama.")
        }
        required = (
            "embedding_length",
            "feed_forward_length",
            "block_count",
            "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        )
        hf = HFConfig(found, "GGUF llama", required)
        if hf.get("rope.scaling.type", "none") != "none" or "rope_freqs.weight" in file:
            raise ValueError(f"{file.path}: rotary scaling in GGUF files is not supported yet")
        heads = hf["attention.head_count"]
        head_width = hf.get("attention.key_length", hf["embedding_length"] // heads)
        config = LlamaConfig(
            activation=Activation.SiLU,
            dtype="float32",
            hidden_width=hf["embedding_length"],
            intermediate_width=hf["feed_forward_length"],
            rms_norm_eps=hf["attention.layer_norm_rms_epsilon"],
            n_query_heads=heads,
            n_key_value_heads=hf.get("attention.head_count_kv", heads),
            n_hidden_layers=hf["block_count"],
            n_pieces=file.infos["token_embd.weight"].shape[0],
            rotary_embedding_base=hf.get("rope.freq_base", 10000.0),
            rotary_embedding_fraction=hf.get("rope.dimension_count", head_width) / head_width,
            head_width=head_width,
            n_positions=hf.get("context_length"),
        )
        spec = cls.spec_from_config(config)
        spec.fields["rotary_interleaved"] = 1
        names = ParameterNames((), "blk.", GGUF_MODEL_NAMES, GGUF_LAYER_NAMES, ignored=r"(?!)")
        return config, spec, names


class LlamaDecoder(Llama, DecoderModule):
    """Llama without its output head."""

"""Between quantization_config of config.json, as transformers writes it, and our configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .config import BitsAndBytesConfig, Config4Bit, Config8Bit, Dtype4Bit
from .impl import config_for

METHOD = "bitsandbytes"


def check_method(stated: Any) -> None:
    """Raises ``ValueError`` for a quantization_config of another method than bitsandbytes'."""
    values = stated if isinstance(stated, dict) else {}
    method = values.get("quant_method")
    if method is None and any(_flag(values, bits) for bits in ("load_in_8bit", "load_in_4bit")):
        return  # of the first releases
    if method != METHOD:
        raise ValueError(
            f"checkpoints quantized by `{method}` are not supported; {METHOD}'s are. A checkpoint "
            "that is not quantized can be quantized while it is loaded: pass quantization_config="
            "BitsAndBytesConfig.for_8bit() or .for_4bit()"
        )


def read_quantization(stated: Any, formats: Iterable[str]) -> BitsAndBytesConfig | None:
    """How matrices of these formats, which a checkpoint has, are computed with: as its
    quantization_config says, or as transformers does where it says nothing. None without any.

    Raises ``ValueError`` for values of the wrong kind.
    """
    values: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    default = config_for(sorted(formats))
    if default is None:
        return None
    if isinstance(default.inner, Config8Bit):
        return BitsAndBytesConfig.for_8bit(_number(values, "llm_int8_threshold", 6.0))
    return BitsAndBytesConfig.for_4bit(
        default.inner.quantization_dtype,
        str(values.get("bnb_4bit_compute_dtype") or "float32"),
        bool(values.get("bnb_4bit_use_double_quant")),
    )


def write_quantization(config: BitsAndBytesConfig, unquantized: list[str] | None) -> dict[str, Any]:
    """quantization_config of a model that is saved. ``unquantized`` are the linear layers that are
    not quantized, by transformers' names; None: those that it leaves alone by itself."""
    inner = config.inner
    four = isinstance(inner, Config4Bit)
    settings = (
        inner if isinstance(inner, Config4Bit) else Config4Bit(Dtype4Bit.FP4, "float32", False)
    )
    return {
        "quant_method": METHOD,
        "load_in_8bit": not four,
        "load_in_4bit": four,
        "llm_int8_threshold": inner.outlier_threshold if isinstance(inner, Config8Bit) else 6.0,
        "llm_int8_skip_modules": unquantized,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_quant_type": settings.format,
        "bnb_4bit_compute_dtype": settings.compute_dtype,
        "bnb_4bit_use_double_quant": settings.double_quantization,
        "bnb_4bit_quant_storage": "uint8",
    }


def _flag(values: Mapping[str, Any], name: str) -> bool:
    return bool(values.get(name) or values.get(f"_{name}"))


def _number(values: Mapping[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"quantization_config of config.json: {name} = {value!r} is no number")
    return float(value)

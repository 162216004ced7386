"""How to quantize: to 8 bits with outliers, or to 4 bits in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..._core import DTYPES
from ...dtype import dtype_name

COMPUTE_DTYPES = ("bfloat16", "float16", "float32")


class Dtype4Bit(str, Enum):
    """The sixteen values that four bits stand for."""

    #: A sign, two bits of exponent, a bit of mantissa.
    FP4 = "fp4"
    #: The quantiles of a normal distribution.
    NF4 = "nf4"


@dataclass(frozen=True)
class Config8Bit:
    """LLM.int8(): values of the input from ``outlier_threshold`` on are multiplied as they are, all
    others as bytes."""

    outlier_threshold: float
    finetunable: bool

    def __post_init__(self) -> None:
        if not self.outlier_threshold >= 0:  # also refuses NaN
            raise ValueError(f"Outlier threshold must be >= 0, was: {self.outlier_threshold}")

    @property
    def format(self) -> str:
        """The core's name of the format."""
        return "llm_int8"

    @property
    def spec_fields(self) -> dict[str, int | float]:
        """The fields of the core's specification."""
        return {"outlier_threshold": self.outlier_threshold}


@dataclass(frozen=True)
class Config4Bit:
    """Blocks of 4-bit values with a scale each, computed with in ``compute_dtype`` (its name)."""

    quantization_dtype: Dtype4Bit
    compute_dtype: str
    double_quantization: bool
    int8_activations: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantization_dtype", Dtype4Bit(self.quantization_dtype))
        object.__setattr__(self, "compute_dtype", _compute_dtype(self.compute_dtype))

    @property
    def format(self) -> str:
        """The core's name of the format."""
        return self.quantization_dtype.value

    @property
    def spec_fields(self) -> dict[str, int | float]:
        """The fields of the core's specification."""
        return {
            "compute_dtype": DTYPES[self.compute_dtype],
            "int8_activations": int(self.int8_activations),
        }


@dataclass(frozen=True)
class BitsAndBytesConfig:
    """A configuration for bitsandbytes' kinds of quantization; ``inner`` holds the settings. Made
    by :meth:`for_8bit` or :meth:`for_4bit`."""

    inner: Config8Bit | Config4Bit

    @property
    def keeps_originals(self) -> bool:
        """Whether the model's state is what was quantized, and not what became of it."""
        return isinstance(self.inner, Config8Bit) and self.inner.finetunable

    @classmethod
    def for_8bit(
        cls, outlier_threshold: float = 6.0, finetunable: bool = False
    ) -> BitsAndBytesConfig:
        """8-bit weights. ``outlier_threshold`` (>= 0) is the magnitude from which on a value of the
        input counts as an outlier; 0: none does. With ``finetunable`` the model keeps the weights
        that were quantized: ``state_dict`` and ``save`` give those. Results are the same."""
        return cls(Config8Bit(outlier_threshold, finetunable))

    @classmethod
    def for_4bit(
        cls,
        quantization_dtype: Dtype4Bit = Dtype4Bit.FP4,
        compute_dtype: Any = "bfloat16",
        double_quantization: bool = True,
        *,
        int8_activations: bool = False,
    ) -> BitsAndBytesConfig:
        """4-bit weights. ``compute_dtype`` is float32, float16 or bfloat16, by name, as a NumPy
        dtype or a ``torch.dtype``; ``double_quantization`` quantizes the blocks' scales, too.
        ``int8_activations`` multiplies few rows of input, as in generation, as bytes with a scale
        for each 64 of them: faster, and less exact by about a percent of a result's size.
        Raises ``ValueError`` for other types."""
        return cls(
            Config4Bit(quantization_dtype, compute_dtype, double_quantization, int8_activations)
        )


def _compute_dtype(dtype: Any) -> str:
    try:
        name: str | None = dtype_name(dtype)
    except ValueError:
        name = None
    if name not in COMPUTE_DTYPES:
        raise ValueError(
            f"Unsupported compute dtype `{dtype}` for quantization, must be one of: "
            + ", ".join(COMPUTE_DTYPES)
        )
    return name

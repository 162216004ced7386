"""Small files of torch.save, and what is in them.

    make golden      # runs this file: writes tests/golden/torch/

NumPy has no bfloat16: the values expected of such a tensor are float32.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

FOLDER = Path(__file__).parent.parent / "golden" / "torch"
DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "bool"),
    *("int64", "int32", "int16", "int8", "uint8"),
)


def tensors(seed: int = 0, rows: int = 3) -> OrderedDict[str, Any]:
    """Everything that a file of tensors can hold, with the metadata of a module's state."""
    torch.manual_seed(seed)
    state: OrderedDict[str, Any] = OrderedDict()
    for name in DTYPES:
        values = torch.randn(rows, 4) * 4
        state[name] = (values > 0) if name == "bool" else values.to(getattr(torch, name))
    whole = torch.randn(rows + 2, 6)
    state["tied.first"] = state["tied.second"] = whole
    state["rows"] = whole[2:]
    state["columns"] = whole[:, 1:4]
    state["steps"] = whole[::2, ::3]
    state["transposed"] = whole.t()
    state["transposed.bfloat16"] = state["bfloat16"].t()
    state["transposed.float64"] = state["float64"].t()
    state["permuted"] = torch.randn(2, rows, 4).permute(2, 0, 1)
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 4)
    state["one.row"] = torch.randn(4, 1).t()
    state["parameter"] = torch.nn.Parameter(torch.randn(5))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


def save(state: Any, path: Path, form: str) -> None:
    """``form``: zip, zip4 (protocol 4), cuda (as if saved from a GPU) or legacy."""
    options: dict[str, Any] = {
        "legacy": {"_use_new_zipfile_serialization": False},
        "zip4": {"pickle_protocol": 4},
    }.get(form, {})
    tag = "cuda:0" if form == "cuda" else "cpu"
    with mock.patch.object(torch.serialization, "location_tag", return_value=tag):
        torch.save(state, path, **options)


FORMS = ("zip", "zip4", "cuda", "legacy")


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The values, as NumPy can hold them."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    state = tensors()
    for form in FORMS:
        save(state, FOLDER / f"{form}.bin", form)
    np.savez(FOLDER / "expected.npz", **{name: as_array(one) for name, one in state.items()})


if __name__ == "__main__":
    main()

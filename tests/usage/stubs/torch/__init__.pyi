# What the code of the usage page takes from torch, for type checkers where torch is not installed.
from typing import Any

class device:
    def __init__(self, type: str, index: int | None = None) -> None: ...
    type: str
    index: int | None

class dtype: ...

bfloat16: dtype

class no_grad:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: Any) -> None: ...

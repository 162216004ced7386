"""Every broken file is refused with a message that names the file and says what is wrong."""

from __future__ import annotations

import pytest
from make import CASES

from curated_transformers.checkpoint import GGUFFile, SafeTensorsFile, TorchFile

READERS = {"safetensors": SafeTensorsFile, "gguf": GGUFFile, "bin": TorchFile}


@pytest.mark.parametrize(
    ("suffix", "name"), [(suffix, name) for suffix, cases in CASES.items() for name in cases]
)
def test_broken_file_is_refused(suffix, name, tmp_path):
    raw, message = CASES[suffix][name]
    path = tmp_path / f"{name}.{suffix}"
    path.write_bytes(raw)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 (the message is checked below)
        READERS[suffix](path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)

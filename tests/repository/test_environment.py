"""What the environment variables mean."""

from __future__ import annotations

import pytest

from curated_transformers.repository import environment


@pytest.mark.parametrize("value", ["1", "on", "ON", "Yes", "true"])
def test_true_values(value, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert environment.is_offline()


@pytest.mark.parametrize("value", ["", "0", "off", "no", "2", "y"])
def test_other_values_are_false(value, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert not environment.is_offline()


@pytest.mark.parametrize(
    ("value", "disabled"), [(None, None), ("", None), ("0", False), ("1", True)]
)
def test_progress_bars_depend_on_the_terminal_unless_it_is_said(
    value, disabled, cache, monkeypatch
):
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    if value is not None:
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", value)
    assert environment.progress_is_disabled() is disabled


def test_the_endpoint(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    assert environment.endpoint() == "https://mirror.example/hf"
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert environment.endpoint() == "https://huggingface.co"


@pytest.mark.parametrize("variable", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_timeouts(variable, cache, monkeypatch):
    read = {
        "HF_HUB_ETAG_TIMEOUT": environment.metadata_timeout,
        "HF_HUB_DOWNLOAD_TIMEOUT": environment.download_timeout,
    }[variable]
    assert read() == 10
    monkeypatch.setenv(variable, "2.5")
    assert read() == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv(variable, wrong)
        with pytest.raises(ValueError, match=f"{variable} must be a number of seconds"):
            read()


def test_the_home_of_the_token(cache, monkeypatch, tmp_path):
    assert environment.token() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME")
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text(" hf_file \n")
    assert environment.token() == "hf_file"
    monkeypatch.setenv("HF_TOKEN", " hf_variable ")
    assert environment.token() == "hf_variable"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert environment.token() is None

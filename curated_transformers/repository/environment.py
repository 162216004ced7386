"""The environment variables of the Hugging Face ecosystem, read when they are asked for."""

from __future__ import annotations

import os
from pathlib import Path

#: Where systems keep the certificates they trust, as far as it is known.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, BSD
)


def hf_home() -> Path:
    """``HF_HOME``, else ``huggingface`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(os.environ.get("HF_HOME") or os.path.join(caches, "huggingface"))


def hub_cache_folder() -> Path:
    """``HF_HUB_CACHE``, else ``hub`` in ``HF_HOME``."""
    explicit = os.environ.get("HF_HUB_CACHE")
    return _expanded(explicit) if explicit else hf_home() / "hub"


def endpoint() -> str:
    """``HF_ENDPOINT``, else the Hub itself; without a slash at the end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """``HF_HUB_OFFLINE`` forbids to use the network."""
    return _is_true("HF_HUB_OFFLINE")


def token() -> str | None:
    """``HF_TOKEN``, else what the file ``HF_TOKEN_PATH`` or ``token`` in ``HF_HOME`` holds.

    None when ``HF_HUB_DISABLE_IMPLICIT_TOKEN`` is set. Raises ``ValueError``, which does not tell
    the token, when it holds characters that no token has.
    """
    if _is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    found, source = os.environ.get("HF_TOKEN", "").strip(), "HF_TOKEN"
    if not found:
        explicit = os.environ.get("HF_TOKEN_PATH")
        path = _expanded(explicit) if explicit else hf_home() / "token"
        try:
            found, source = path.read_bytes().decode("latin-1").strip(), str(path)
        except OSError:
            return None
    if not all("!" <= character <= "~" for character in found):
        raise ValueError(f"the token in {source} holds spaces or other characters that none has")
    return found or None


def metadata_timeout() -> float:
    """``HF_HUB_ETAG_TIMEOUT``, seconds that a question about a file may take."""
    return _seconds("HF_HUB_ETAG_TIMEOUT", 10)


def download_timeout() -> float:
    """``HF_HUB_DOWNLOAD_TIMEOUT``, seconds without a byte after which a download is broken."""
    return _seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10)


def progress_is_disabled() -> bool | None:
    """``HF_HUB_DISABLE_PROGRESS_BARS``; None, when it is not set: by whether anybody sees it."""
    if not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        return None
    return _is_true("HF_HUB_DISABLE_PROGRESS_BARS")


def symlinks_warning_is_disabled() -> bool:
    """``HF_HUB_DISABLE_SYMLINKS_WARNING``."""
    return _is_true("HF_HUB_DISABLE_SYMLINKS_WARNING")


def ca_file(builtin: str | None) -> str | None:
    """The trusted certificates: ``SSL_CERT_FILE``, ``CURL_CA_BUNDLE``, those of certifi if it is
    installed, libcurl's ``builtin`` ones, or where systems keep them; None: as libcurl thinks."""
    for variable in ("SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        if os.environ.get(variable):
            return os.environ[variable]
    try:
        import certifi
    except ImportError:
        pass
    else:
        return str(certifi.where())
    if builtin is not None and os.path.exists(builtin):
        return None
    return next((path for path in CERTIFICATES if os.path.exists(path)), None)


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 1e6:
        raise ValueError(f"{variable} must be a number of seconds, was: {text!r}")
    return seconds

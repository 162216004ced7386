"""huggingface_hub and this package share one cache, and one Hub takes what either uploads.

It reads the environment when it is imported, so that it runs in processes of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from hub_server import COMMIT

from curated_transformers.repository import HfHubRepository, fetch_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is the oracle"
    ),
]

NAME = "org/model"
LARGE = bytes(range(256)) * 4096
FILES = {"config.json": b"{}", "a/b/model.bin": LARGE, "ü b.txt": b"text"}


@pytest.fixture
def model(hub):
    hub.add(NAME, FILES, large={"a/b/model.bin"}).revisions["refs/pr/1"] = COMMIT
    return hub


def oracle(code, **environment):
    """What ``code`` prints as JSON with huggingface_hub at hand."""
    done = subprocess.run(
        [sys.executable, "-"],
        input=f"import json\nfrom huggingface_hub import *\n{code}",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", "PYTHONUTF8": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tree(cache):
    """Names, and where links lead; locks are another matter."""
    return {
        str(path.relative_to(cache)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in cache.rglob("*")
        if not path.is_dir() and ".locks" not in path.parts and path.name != "CACHEDIR.TAG"
    }


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", COMMIT])
def test_the_caches_are_the_same_file_by_file(revision, model, cache, tmp_path):
    repo = HfHubRepository(NAME, revision=revision)
    fetch_files([repo.file(path) for path in FILES])
    assert not repo.file("none.json").exists()
    theirs = tmp_path / "theirs"
    oracle(
        f"for path in {list(FILES)!r}:\n"
        f"    hf_hub_download({NAME!r}, path, revision={revision!r})\n"
        "try:\n"
        f"    hf_hub_download({NAME!r}, 'none.json', revision={revision!r})\n"
        "except Exception as error:\n"
        "    print(json.dumps(type(error).__name__))",
        HF_HUB_CACHE=str(theirs),
    )
    assert tree(cache) == tree(theirs)


def test_what_we_downloaded_is_found_by_them_offline(model, cache):
    repo = HfHubRepository(NAME)
    fetch_files([repo.file(path) for path in FILES])
    assert not repo.file("none.json").exists()
    found = oracle(
        "from huggingface_hub import _CACHED_NO_EXIST\n"
        f"paths = [try_to_load_from_cache({NAME!r}, path) for path in {list(FILES)!r}]\n"
        f"none = try_to_load_from_cache({NAME!r}, 'none.json')\n"
        f"folder = snapshot_download({NAME!r})\n"
        "info = scan_cache_dir()\n"
        "print(json.dumps([paths, none is _CACHED_NO_EXIST, folder,\n"
        "    [str(w) for w in info.warnings], [(r.repo_id, r.size_on_disk) for r in info.repos]]))",
        HF_HUB_OFFLINE="1",
    )
    snapshot = cache / "models--org--model" / "snapshots" / COMMIT
    size = sum(map(len, FILES.values()))
    assert found == [
        [str(snapshot / path) for path in FILES],
        True,
        str(snapshot),
        [],
        [[NAME, size]],
    ]


def test_what_they_downloaded_is_read_by_us_without_a_download(model, cache):
    oracle(f"print(json.dumps(snapshot_download({NAME!r})))")
    model.seen.clear()
    repo = HfHubRepository(NAME)
    for path, content in FILES.items():
        with repo.file(path).open() as file:
            assert file.read() == content
    assert [seen.method for seen in model.seen] == ["HEAD"]


def test_what_we_downloaded_is_not_downloaded_by_them(model, cache):
    repo = HfHubRepository(NAME)
    fetch_files([repo.file(path) for path in FILES])
    model.seen.clear()
    oracle(f"print(json.dumps([hf_hub_download({NAME!r}, p) for p in {list(FILES)!r}]))")
    assert [seen for seen in model.requests("GET") if "/resolve/" in seen.path] == []


@pytest.mark.parametrize("part_size", [None, 100_000])
def test_the_commits_are_the_same(part_size, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", model.token)
    model.part_size = part_size
    repo = model.repos[NAME]
    files = {"new.json": b'{"a": 1}', "sub/new.bin": LARGE + b"\0", "empty.txt": b""}
    with HfHubRepository(NAME).transaction() as transaction:
        for path, content in files.items():
            with transaction.open(path, "wb") as file:
                file.write(content)
    ours = {path: repo.files.pop(path) for path in files}
    stored = dict(model.stored)
    model.stored.clear()
    oracle(
        "import base64, pathlib\n"
        f"files = json.loads({json.dumps(json.dumps({p: c.hex() for p, c in files.items()}))})\n"
        "operations = [CommitOperationAdd(p, bytes.fromhex(c)) for p, c in files.items()]\n"
        f"HfApi().create_commit({NAME!r}, operations, commit_message='Upload 3 files')\n"
        "print(json.dumps(None))"
    )
    theirs = {path: repo.files[path] for path in files}
    assert ours == theirs == files
    assert stored == model.stored
    first, second = repo.commits

    def plain(commit):
        return sorted(json.dumps(line, sort_keys=True) for line in commit)

    assert plain(first) == plain(second)


def test_errors_are_of_the_same_kind(model):
    """Each of their classes has one of ours."""
    model.add("org/gated", FILES).gated = True
    cases = {
        ("org/none", "main", "config.json"): "RepositoryNotFoundError",
        ("org/gated", "main", "config.json"): "GatedRepoError",
        (NAME, "v9", "config.json"): "RevisionNotFoundError",
        (NAME, "main", "none.json"): "RemoteEntryNotFoundError",
    }
    ours = {
        "RepositoryNotFoundError": "RepositoryNotFoundError",
        "GatedRepoError": "GatedRepositoryError",
        "RevisionNotFoundError": "RevisionNotFoundError",
        "RemoteEntryNotFoundError": "RemoteFileNotFoundError",
    }
    theirs = oracle(
        "names = []\n"
        f"for name, revision, path in {list(cases)!r}:\n"
        "    try:\n"
        "        hf_hub_download(name, path, revision=revision)\n"
        "    except Exception as error:\n"
        "        names.append(type(error).__name__)\n"
        "print(json.dumps(names))"
    )
    assert theirs == list(cases.values())
    for (name, revision, path), kind in cases.items():
        with pytest.raises(OSError, match=name) as error:
            HfHubRepository(name, revision=revision).file(path).open()
        assert type(error.value).__name__ == ours[kind]

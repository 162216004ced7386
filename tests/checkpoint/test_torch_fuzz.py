"""Changed files of torch: each is read, or refused by one of the expected errors, in bounded
memory and without running anything."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

import pytest
from changed_bytes import changed, changes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_limit import memory_limit
from torch_writer import number, text, with_pickle

from curated_transformers.checkpoint import TorchFile

GOLDEN = Path(__file__).parent.parent / "golden" / "torch"
WHOLE = {form: (GOLDEN / f"{form}.bin").read_bytes() for form in ("zip", "zip4", "cuda", "legacy")}
#: What a file of 6 KB may take on top of what the process has.
MOST_MEMORY = 512 << 20

# What operations look like, and lengths that lie. A change puts them where others were.
OPERATIONS = [
    bytes([code]) for code in b".(}])Nt\x85\x86\x87RbQsuaecqrhj\x93\x94\x95\x8a\x8bKMJUTX"
]
LIES = [
    *(b"\x8b\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 7 + b"\0"),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"\x95" + b"\xff" * 8, b"r\xff\xff\xff\x7f"),
    *(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6"),
]
some_changes = changes([*OPERATIONS, *LIES])


def pickle_of(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)


PICKLES = {form: pickle_of(WHOLE[form]) for form in ("zip", "zip4", "cuda")}


def operations_of(pickled):
    """Each operation with its argument. Frames go, since they only say how long the rest is."""
    found = list(pickletools.genops(pickled))
    ends = [place for _, _, place in found[1:]] + [len(pickled)]
    return [
        pickled[place:end]
        for (operation, _, place), end in zip(found, ends, strict=True)
        if operation.name != "FRAME"
    ]


NUMBERS = [number(n) for n in (-1, 0, 1, 2, 5, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, -(2**63))]
edits = st.lists(
    st.tuples(
        st.sampled_from(["swap", "copy", "remove", "number", "other"]),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([*NUMBERS, *OPERATIONS, text("x"), text("0"), text("float32")]),
    ),
    min_size=1,
    max_size=4,
)


def edited(pickled, steps):
    """A pickle of whole operations, which is understood further than one of changed bytes."""
    operations = operations_of(pickled)
    for kind, first, second, other in steps:
        a, b = int(first * len(operations)), int(second * len(operations))
        if kind == "swap":
            operations[a], operations[b] = operations[b], operations[a]
        elif kind == "copy":
            operations.insert(a, operations[b])
        elif kind == "remove":
            del operations[a]
        elif kind == "number":
            places = [i for i, one in enumerate(operations) if one[:1] in (b"K", b"M", b"J")]
            if places:
                operations[places[a % len(places)]] = other
        else:
            operations[a] = other
    return b"".join(operations)


def read(raw, folder):
    path = folder / "model.bin"
    path.unlink(missing_ok=True)  # what is mapped from it stays as it is
    path.write_bytes(raw)
    try:
        file = TorchFile(path)
    except (ValueError, OSError) as error:
        assert "model.bin" in str(error)  # noqa: PT017 (no error is as good)
        return
    for name in file:
        try:
            values = file[name]
            assert values.nbytes <= 2 * len(raw)  # repeated elements of float16 at most
        except (ValueError, NotImplementedError):
            pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    with memory_limit(MOST_MEMORY):
        yield path


def fuzz(folder, examples):
    options = settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )

    @options
    @given(st.sampled_from(sorted(WHOLE)), some_changes)
    def changes_of_files(form, steps):
        read(changed(WHOLE[form], steps), folder)

    @options
    @given(st.sampled_from(sorted(PICKLES)), some_changes)
    def changes_of_pickles(form, steps):
        read(with_pickle(WHOLE[form], changed(PICKLES[form], steps)), folder)

    @options
    @given(st.sampled_from(sorted(PICKLES)), edits)
    def edits_of_pickles(form, steps):
        read(with_pickle(WHOLE[form], edited(PICKLES[form], steps)), folder)

    changes_of_files()
    changes_of_pickles()
    edits_of_pickles()


def test_changed_files_are_read_or_refused(folder):
    fuzz(folder, 400)


@pytest.mark.slow
def test_many_changed_files_are_read_or_refused(folder):
    fuzz(folder, 20_000)


def test_an_unchanged_pickle_in_a_new_archive_is_read(folder):
    """So that the changes above begin from what is valid."""
    for form, pickled in PICKLES.items():
        for same in (pickled, edited(pickled, [])):
            path = folder / f"{form}-{len(same)}.bin"
            path.write_bytes(with_pickle(WHOLE[form], same))
            assert len(TorchFile(path)) == 23

"""Random bytes, and changed files, in the place of every file that is read from a repository.

Each is read, or refused by one of the documented errors, in bounded memory and time. Files of torch
have more of this in checkpoint/test_torch_fuzz.py, the parsers in C in fuzz/.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import small_models
import tokenizers as engine
from changed_bytes import changed, changes
from checkpoint_writers import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32, gguf, write_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_limit import memory_limit
from tokenizers.models import BPE

from curated_transformers.checkpoint import GGUFFile, SafeTensorsFile, TorchFile, load_checkpoint
from curated_transformers.generation.end_pieces import end_ids_of_repo
from curated_transformers.models import AutoEncoder
from curated_transformers.models.sentence_transformers import read_sentence_config
from curated_transformers.quantization import BitsAndBytesConfig
from curated_transformers.repository import LocalRepository
from curated_transformers.tokenizers import AutoTokenizer, Tokenizer
from curated_transformers.tokenizers.legacy import (
    BERTTokenizer,
    CamemBERTTokenizer,
    LlamaTokenizer,
    RoBERTaTokenizer,
)

GOLDEN = Path(__file__).parent / "golden"
#: What a file of some KB may take on top of what the process has, and how long.
MOST_MEMORY = 512 << 20
MOST_TIME = timedelta(seconds=20)
REFUSALS = (ValueError, OSError, NotImplementedError)

JSON_PIECES = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"-1", b"0", b"1e999", b"NaN"),
    *(b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b'"\\ud800"', b"9223372036854775808", b"\\"),
    *(b'"../x"', b'"/etc/passwd"', b'"C:\\\\x"'),
)
QUANTIZED_FILES = {"config.json": "4-bit.json", "model.safetensors": "4-bit.safetensors"}
JSON_FILES = {
    "generation_config.json": {"eos_token_id": [1, 2]},
    "modules.json": [{"type": "a.Transformer", "path": ""}, {"type": "a.Normalize", "path": "2"}],
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"a": "b"}, "default_prompt_name": "a"},
}


def read_all(file):
    for name in file:
        with contextlib.suppress(*REFUSALS):  # a type is refused only when it is asked for
            file[name].numpy()


def safetensors_file(folder):
    read_all(SafeTensorsFile(folder / "model.safetensors"))


def torch_file(folder):
    read_all(TorchFile(folder / "model.bin"))


def gguf_file(folder):
    file = GGUFFile(folder / "model.gguf")
    dict(file.metadata)
    read_all(file)


def shards(folder):
    read_all(load_checkpoint(folder))


def model(folder):
    AutoEncoder.from_path(folder)


def quantized(folder):
    """A model of bitsandbytes whose two files have names of their own here."""
    (folder / "quantized").mkdir(exist_ok=True)
    for name, source in QUANTIZED_FILES.items():
        (folder / "quantized" / name).unlink(missing_ok=True)
        shutil.copy(folder / source, folder / "quantized" / name)
    AutoEncoder.from_path(folder / "quantized")


def sentences(folder):
    read_sentence_config(LocalRepository(folder), None)


def ends(folder):
    end_ids_of_repo(LocalRepository(folder))


def gguf_tokenizer(folder):
    Tokenizer.from_path(folder / "model.gguf")(["ab a"])


def tokenizer(folder):
    AutoTokenizer.from_path(folder)(["ab a"])


def legacy(kind, *names):
    def load(folder):
        kind.from_files(**{key: folder / name for key, name in names})(["ab a"])

    return load


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder with a valid file of each kind."""
    folder = tmp_path_factory.mktemp("valid")
    small_models.bert(folder)
    four_bits = BitsAndBytesConfig.for_4bit("nf4", "float32")
    AutoEncoder.from_path(folder, quantization_config=four_bits).save(folder / "saved")
    for name, target in QUANTIZED_FILES.items():
        (folder / "saved" / name).rename(folder / target)
    weights = {"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.float32)}
    write_safetensors(folder / "part.safetensors", weights)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "part.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(GOLDEN / "torch" / "zip.bin", folder / "model.bin")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b"]
    entries = [
        ("general.architecture", STRING, "llama"),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, [*pieces, "ab"])),
        ("tokenizer.ggml.scores", ARRAY, (FLOAT32, [-float(i) for i in range(len(pieces) + 1)])),
        ("tokenizer.ggml.token_type", ARRAY, (INT32, [2, 3, 3, *[6] * 256, 1, 1, 1, 1])),
        ("tokenizer.ggml.bos_token_id", UINT32, 1),
        ("tokenizer.ggml.add_bos_token", BOOL, 1),
    ]
    tensors = [("x", [32], 8, 0), ("y", [2], 0, 64)]
    (folder / "model.gguf").write_bytes(gguf(entries, tensors, bytes(72)))
    for name, value in JSON_FILES.items():
        (folder / name).write_text(json.dumps(value))
    for path in (GOLDEN / "tokenizers").iterdir():
        if path.name != "expected.json":
            shutil.copy(path, folder)
    pairs = BPE({"<unk>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")], unk_token="<unk>")
    engine.Tokenizer(pairs).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "a", "eos_token": {"content": "b"}, "chat_template": "{{ a }}"})
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"unk_token": "a"}))
    return folder


#: What is changed -> what reads it, the files that this needs, and pieces of the format.
FILES = {
    "model.safetensors": (safetensors_file, [], JSON_PIECES),
    "model.bin": (torch_file, [], (b"PK\3\4", b"cos\nsystem\n")),
    "model.gguf": (gguf_file, [], ()),
    "model.safetensors.index.json": (shards, ["part.safetensors"], JSON_PIECES),
    "config.json": (model, ["model.safetensors"], JSON_PIECES),
    "4-bit.json": (quantized, ["4-bit.safetensors"], JSON_PIECES),
    "4-bit.safetensors": (quantized, ["4-bit.json"], JSON_PIECES),
    "generation_config.json": (ends, [], JSON_PIECES),
    "modules.json": (sentences, ["sentence_bert_config.json"], JSON_PIECES),
    "sentence_bert_config.json": (sentences, ["modules.json"], JSON_PIECES),
    "config_sentence_transformers.json": (sentences, ["modules.json"], JSON_PIECES),
    "model.gguf as a tokenizer": (gguf_tokenizer, [], ()),
    "tokenizer.json": (tokenizer, [], JSON_PIECES),
    "tokenizer_config.json": (tokenizer, ["tokenizer.json"], JSON_PIECES),
    "special_tokens_map.json": (tokenizer, ["tokenizer.json"], JSON_PIECES),
    "vocab.txt": (legacy(BERTTokenizer, ("vocab_file", "vocab.txt")), [], (b"\n", b"\r", b"\xff")),
    "vocab.json": (
        legacy(RoBERTaTokenizer, ("vocab_file", "vocab.json"), ("merges_file", "merges.txt")),
        ["merges.txt"],
        JSON_PIECES,
    ),
    "merges.txt": (
        legacy(RoBERTaTokenizer, ("vocab_file", "vocab.json"), ("merges_file", "merges.txt")),
        ["vocab.json"],
        (b"\n", b" ", b"\xff"),
    ),
    "bpe.model": (legacy(LlamaTokenizer, ("model_file", "bpe.model")), [], ()),
    "unigram.model": (legacy(CamemBERTTokenizer, ("model_file", "unigram.model")), [], ()),
}


def fuzz(originals, folder, name, examples):
    load, needed, pieces = FILES[name]
    path = folder / name.split()[0]
    whole = (originals / path.name).read_bytes()
    for other in needed:
        shutil.copy(originals / other, folder)

    def load_bytes(raw):
        path.unlink(missing_ok=True)  # what is mapped from it stays as it is
        path.write_bytes(raw)
        load(folder)

    options = settings(
        max_examples=examples,
        deadline=MOST_TIME,
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )

    def is_read_or_refused(raw):
        with contextlib.suppress(*REFUSALS):
            load_bytes(raw)

    @options
    @given(changes(pieces))
    def changed_files(steps):
        is_read_or_refused(changed(whole, steps))

    @options
    @given(st.binary(max_size=2000), st.integers(0, 16))
    def random_bytes(raw, kept):
        is_read_or_refused(whole[:kept] + raw)

    load_bytes(whole)  # so that the changes begin from what is valid
    with memory_limit(MOST_MEMORY):
        changed_files()
        random_bytes()


@pytest.mark.parametrize("name", FILES)
def test_changed_files_are_read_or_refused(name, originals, tmp_path):
    fuzz(originals, tmp_path, name, 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_many_changed_files_are_read_or_refused(name, originals, tmp_path):
    fuzz(originals, tmp_path, name, 3000)

"""Loading tokenizers: from files, folders, repositories and the Hub; which kind a repository has;
and what broken files are answered with."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import tokenizers as engine
from tokenizers.models import WordLevel

from curated_transformers.repository import LocalFile, LocalRepository, Repository, RepositoryFile
from curated_transformers.tokenizers import AutoTokenizer, Tokenizer, auto_tokenizer, hf_hub
from curated_transformers.tokenizers.legacy import (
    BERTTokenizer,
    CamemBERTTokenizer,
    LlamaTokenizer,
    RoBERTaTokenizer,
    XLMRTokenizer,
)

SENTENCE = "The last one, never"

# Kind -> names of its files, and what they are called in tests/golden/tokenizers.
KINDS = {
    BERTTokenizer: {"vocab.txt": "vocab.txt"},
    CamemBERTTokenizer: {"sentencepiece.bpe.model": "unigram.model"},
    LlamaTokenizer: {"tokenizer.model": "bpe.model"},
    RoBERTaTokenizer: {"vocab.json": "vocab.json", "merges.txt": "merges.txt"},
    XLMRTokenizer: {"sentencepiece.bpe.model": "unigram.model"},
}


class MemoryFile(RepositoryFile):
    def __init__(self, repo, path):
        self.repo = repo
        self.name = path

    def open(self, mode="rb", encoding=None):
        if not self.exists():
            raise FileNotFoundError(f"no {self.name}")
        self.repo.opened.append(self.name)
        raw = io.BytesIO(self.repo.content[self.name])
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding=encoding)

    @property
    def path(self):
        return None

    def exists(self):
        return self.name in self.repo.content


class MemoryRepository(Repository):
    """What a user's own repository is: the abstract methods, and files that lie nowhere."""

    def __init__(self, content):
        self.content = {
            name: data if isinstance(data, bytes) else json.dumps(data).encode()
            for name, data in content.items()
        }
        self.opened = []

    def file(self, path):
        return MemoryFile(self, path)

    def pretty_path(self, path=None):
        return f"memory/{path}" if path else "memory"

    def transaction(self):
        raise NotImplementedError


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def files(kind, vocabularies):
    return {name: (vocabularies / source).read_bytes() for name, source in KINDS[kind].items()}


@pytest.fixture
def make_repo(vocabularies):
    def make(kind, **others):
        content = {name: (vocabularies / old).read_bytes() for name, old in KINDS[kind].items()}
        return MemoryRepository({**content, **others})

    return make


def from_repo(kind, files, config=None):
    config_file = {} if config is None else {"tokenizer_config.json": config}
    return kind.from_repo(MemoryRepository({**files, **config_file}))


# Every way leads to the same tokenizer.


def test_files_folders_and_repositories_give_the_same_tokenizer(kind, files, tmp_path):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    arguments = [
        {"vocab.txt": "vocab_file", "vocab.json": "vocab_file", "merges.txt": "merges_file"}.get(
            name, "model_file"
        )
        for name in files
    ]
    expected = from_repo(kind, files)([SENTENCE])
    for make_file in (Path, LocalFile):
        paths = [make_file(tmp_path / name) for name in files]
        tokenizer = kind.from_files(**dict(zip(arguments, paths, strict=True)))
        assert tokenizer([SENTENCE]) == expected
    assert kind.from_dir(tmp_path)([SENTENCE]) == expected
    assert kind.from_repo(LocalRepository(tmp_path))([SENTENCE]) == expected


def test_fsspec_file_systems_are_repositories(kind, files, monkeypatch):
    seen = []

    def make_repository(fs, path, fsspec_args=None):
        seen.append((fs, path, fsspec_args))
        return MemoryRepository({**files, "config.json": {"model_type": model_type(kind)}})

    monkeypatch.setattr(hf_hub, "FsspecRepository", make_repository)
    monkeypatch.setattr(auto_tokenizer, "FsspecRepository", make_repository)
    expected = from_repo(kind, files)([SENTENCE])
    for loader in (kind, AutoTokenizer):
        tokenizer = loader.from_fsspec(fs="fs", model_path="a/b", fsspec_args="args")
        assert tokenizer([SENTENCE]) == expected
    assert seen == [("fs", "a/b", "args")] * 2


@pytest.fixture
def hub(monkeypatch):
    """Repositories by name, in place of the Hub."""
    repositories = {}

    def find(name, *, revision="main"):
        return repositories[name, revision]

    monkeypatch.setattr(hf_hub, "HfHubRepository", find)
    monkeypatch.setattr(auto_tokenizer, "HfHubRepository", find)
    return repositories


def test_from_hf_hub_reads_the_repository_at_a_revision(kind, files, hub):
    config = {"model_type": model_type(kind)}
    hub["org/model", "v1"] = MemoryRepository({**files, "config.json": config})
    expected = from_repo(kind, files)([SENTENCE])
    for loader in (kind, AutoTokenizer):
        tokenizer = loader.from_hf_hub(name="org/model", revision="v1")
        assert tokenizer([SENTENCE]) == expected


@pytest.mark.parametrize("has_config", [False, True])
def test_to_cache_opens_the_vocabulary_and_what_else_exists(has_config, kind, files, hub):
    config = {"tokenizer_config.json": {}} if has_config else {}
    for loader in (kind, AutoTokenizer):
        repo = hub["org/model", "main"] = MemoryRepository(
            {**files, **config, "config.json": {"model_type": model_type(kind)}}
        )
        loader.from_hf_hub_to_cache(name="org/model")
        reads_config = kind in (BERTTokenizer, LlamaTokenizer) or loader is AutoTokenizer
        assert set(files) <= set(repo.opened)
        assert ("tokenizer_config.json" in repo.opened) == (has_config and reads_config)


def test_to_cache_opens_tokenizer_json_and_what_else_exists(hub):
    content = {
        "tokenizer.json": b"",
        "chat_template.jinja": b"",
        "special_tokens_map.json": {},
        "vocab.txt": b"",
    }
    for loader in (Tokenizer, AutoTokenizer):
        repo = hub["org/model", "main"] = MemoryRepository(content)
        loader.from_hf_hub_to_cache(name="org/model")
        assert sorted(repo.opened) == sorted(set(content) - {"vocab.txt"})


def test_a_repository_without_the_vocabulary_is_a_missing_file(kind, hub, tmp_path):
    hub["org/model", "main"] = MemoryRepository({"tokenizer_config.json": {}})
    for load in (
        lambda: kind.from_dir(tmp_path),
        lambda: kind.from_hf_hub(name="org/model"),
        lambda: kind.from_hf_hub_to_cache(name="org/model"),
        lambda: from_repo(kind, {}),
    ):
        with pytest.raises(FileNotFoundError):
            load()


def test_tokenizers_come_from_the_local_cache(kind, files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = tmp_path / "models--org--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    reference = tmp_path / "models--org--model" / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("0" * 40)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    (snapshot / "config.json").write_text(json.dumps({"model_type": model_type(kind)}))
    expected = from_repo(kind, files)([SENTENCE])
    for loader in (kind, AutoTokenizer):
        loader.from_hf_hub_to_cache(name="org/model")
        assert loader.from_hf_hub(name="org/model")([SENTENCE]) == expected
    with pytest.raises(FileNotFoundError):
        kind.from_hf_hub(name="org/other")
    with pytest.raises(FileNotFoundError):
        kind.from_hf_hub_to_cache(name="org/other")


# Which kind a repository has.


def model_type(kind):
    return {
        BERTTokenizer: "bert",
        CamemBERTTokenizer: "camembert",
        LlamaTokenizer: "llama",
        RoBERTaTokenizer: "roberta",
        XLMRTokenizer: "xlm-roberta",
    }[kind]


TOKENIZER_CLASSES = {
    "BertTokenizer": BERTTokenizer,
    "CamembertTokenizer": CamemBERTTokenizer,
    "DistilBertTokenizer": BERTTokenizer,
    "ElectraTokenizer": BERTTokenizer,
    "LlamaTokenizer": LlamaTokenizer,
    "RobertaTokenizer": RoBERTaTokenizer,
    "XLMRobertaTokenizer": XLMRTokenizer,
}


@pytest.mark.parametrize("suffix", ["", "Fast"])
@pytest.mark.parametrize("name", TOKENIZER_CLASSES)
def test_the_tokenizer_class_comes_before_the_model_type(name, suffix, make_repo, capsys):
    kind = TOKENIZER_CLASSES[name]
    repo = make_repo(
        kind,
        **{
            "tokenizer_config.json": {"tokenizer_class": name + suffix},
            "config.json": {"model_type": "llama" if kind is BERTTokenizer else "bert"},
        },
    )
    assert type(AutoTokenizer.from_repo(repo)) is kind
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((model_type(kind), kind) for kind in KINDS),
        ("electra", BERTTokenizer),
        ("distilbert", BERTTokenizer),
    ],
)
@pytest.mark.parametrize("config", [None, {}, {"tokenizer_class": "OtherTokenizer"}, b"{"])
def test_the_model_type_tells_the_kind_otherwise(name, kind, config, make_repo, capsys):
    others = {"config.json": {"model_type": name}}
    if config == b"{" and kind in (BERTTokenizer, LlamaTokenizer):
        config = None  # these read it themselves
    if config is not None:
        others["tokenizer_config.json"] = config
    assert type(AutoTokenizer.from_repo(make_repo(kind, **others))) is kind
    assert capsys.readouterr() == ("", "")


def test_tokenizer_json_comes_first(make_repo):
    text = engine.Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str().encode()
    repo = make_repo(
        BERTTokenizer, **{"tokenizer.json": text, "config.json": {"model_type": "bert"}}
    )
    assert type(AutoTokenizer.from_repo(repo)) is Tokenizer


def test_tokenizer_json_comes_from_every_kind_of_repository(hub, monkeypatch):
    text = engine.Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str().encode()
    repo = hub["org/model", "v1"] = MemoryRepository({"tokenizer.json": text})
    monkeypatch.setattr(hf_hub, "FsspecRepository", lambda fs, path, args: repo)
    monkeypatch.setattr(auto_tokenizer, "FsspecRepository", lambda fs, path, args: repo)
    for loader in (Tokenizer, AutoTokenizer):
        assert type(loader.from_hf_hub(name="org/model", revision="v1")) is Tokenizer
        assert type(loader.from_fsspec(fs="fs", model_path="a/b")) is Tokenizer


def test_auto_tokenizer_takes_folders(vocabularies, tmp_path):
    shutil.copy(vocabularies / "vocab.txt", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert type(AutoTokenizer.from_path(tmp_path)) is BERTTokenizer


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "and no model_type: Cannot load config for the model at .*config.json"),
        (b"{", "and no model_type: Cannot load config"),
        (b"\xff", "and no model_type: Cannot load config"),
        ([], "not a JSON object"),
        ({"model_type": "other"}, "no tokenizer is known for the model_type `other`"),
        ({"model_type": 3}, "it has no `model_type`"),
        ({}, "it has no `model_type`"),
    ],
)
def test_a_repository_that_does_not_tell_its_kind_is_refused(config, reason):
    content = {} if config is None else {"config.json": config, "tokenizer_config.json": config}
    message = f"Cannot infer tokenizer for repo: memory: neither tokenizer.json .*{reason}"
    with pytest.raises(ValueError, match=message):
        AutoTokenizer.from_repo(MemoryRepository(content))


def test_mpnet_is_bert_with_other_special_pieces():
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "the", "##re", "[UNK]", "<mask>"]
    repo = MemoryRepository(
        {
            "vocab.txt": "\n".join(pieces).encode(),
            "tokenizer_config.json": {"do_lower_case": True, "tokenizer_class": "MPNetTokenizer"},
        }
    )
    tokenizer = AutoTokenizer.from_repo(repo)
    batch = tokenizer(["There x"])
    assert batch.pieces == [["<s>", "the", "##re", "[UNK]", "</s>"]]
    assert tokenizer.decode([[*batch.ids[0], 1, 7]]) == ["there"]


# What the tokenizer's config says.


def bert_files(*pieces):
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<b>", "<e>", "<u>")
    return {"vocab.txt": "".join(f"{piece}\n" for piece in (*special, *pieces)).encode()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, ["É", "[UNK]"]),
        ({}, ["É", "[UNK]"]),
        ({"do_lower_case": False}, ["É", "[UNK]"]),
        ({"do_lower_case": True}, ["e", "[UNK]"]),
        ({"do_lower_case": True, "strip_accents": None}, ["e", "[UNK]"]),
        ({"do_lower_case": True, "strip_accents": False}, ["é", "[UNK]"]),
        ({"do_lower_case": None, "strip_accents": True}, ["E", "[UNK]"]),
        ({"tokenize_chinese_chars": False}, ["É", "今今"]),
        ({"unk_token": "<u>"}, ["É", "<u>"]),
        ({"unk_token": {"content": "<u>"}}, ["É", "<u>"]),
    ],
)
def test_bert_reads_its_config(config, expected):
    files = bert_files("É", "é", "e", "E", "今今")
    (pieces,) = from_repo(BERTTokenizer, files, config)(["É 今今"]).pieces
    if "今今" not in expected:  # each character is an unknown word
        expected = [expected[0], expected[1], expected[1]]
    assert pieces == ["[CLS]", *expected, "[SEP]"]


def test_bert_takes_the_special_pieces_of_its_config():
    config = {"cls_token": "<b>", "sep_token": {"content": "<e>"}, "pad_token": "<u>"}
    tokenizer = from_repo(BERTTokenizer, bert_files("a"), config)
    batch = tokenizer(["a"])
    assert batch.pieces == [["<b>", "a", "<e>"]]
    assert tokenizer.eos_piece == "<e>"
    assert tokenizer.decode([[*batch.ids[0], 7, 7]]) == ["a"]


@pytest.mark.parametrize(
    ("config", "around"),
    [
        (None, (["<s>"], [])),
        ({"add_bos_token": None, "add_eos_token": None}, (["<s>"], [])),
        ({"add_bos_token": False}, ([], [])),
        ({"add_bos_token": True, "add_eos_token": True}, (["<s>"], ["</s>"])),
    ],
)
def test_llama_reads_its_config(config, around, vocabularies):
    files = {"tokenizer.model": (vocabularies / "bpe.model").read_bytes()}
    (pieces,) = from_repo(LlamaTokenizer, files, config)([""]).pieces
    assert pieces == [*around[0], *around[1]]


@pytest.mark.parametrize("kind", [BERTTokenizer, LlamaTokenizer])
@pytest.mark.parametrize("config", [b"{", b"[]", b"\xff"])
def test_a_broken_config_is_refused(kind, config, make_repo):
    with pytest.raises(OSError, match="Couldn't find a valid config for the tokenizer at"):
        kind.from_repo(make_repo(kind, **{"tokenizer_config.json": config}))


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (BERTTokenizer, {"do_lower_case": "yes"}, "`do_lower_case` must be true or false"),
        (BERTTokenizer, {"cls_token": 3}, "`cls_token` must be a piece, was 3"),
        (LlamaTokenizer, {"add_bos_token": 1}, "`add_bos_token` must be true or false, was 1"),
    ],
)
def test_config_values_of_the_wrong_type_are_refused(kind, config, message, make_repo):
    with pytest.raises(ValueError, match=message):
        kind.from_repo(make_repo(kind, **{"tokenizer_config.json": config}))


# Vocabulary files.


def test_duplicate_and_blank_lines_keep_the_numbering():
    lines = ["[PAD]", "[UNK]", "", "a", "[CLS]", "b", "\u3000", "a", "[SEP]", "  c\r", ""]
    tokenizer = from_repo(BERTTokenizer, {"vocab.txt": "\n".join(lines).encode()})
    # The original numbers lines, and of two with the same piece the last one counts.
    assert tokenizer(["a b c"]).ids == [[4, 7, 5, 9, 8]]
    assert tokenizer.decode([[3, 2, 5, 7]]) == ["a  b a"]
    assert tokenizer.piece_to_id("") is None


BYTES = json.dumps({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}).encode()
MERGES = b"#version: 0.2\na b\n"


@pytest.mark.parametrize(
    ("kind", "files", "name", "message"),
    [
        (BERTTokenizer, {"vocab.txt": b"[UNK]\n[CLS]\n\xff\n"}, "vocab.txt", "not UTF-8"),
        (BERTTokenizer, {"vocab.txt": b"[UNK]\n[CLS]\n"}, "vocab.txt", r"\['\[SEP\]'\]"),
        (BERTTokenizer, {"vocab.txt": b""}, "vocab.txt", "special pieces"),
        (RoBERTaTokenizer, {"vocab.json": b"{"}, "vocab.json", "not a valid vocabulary"),
        (RoBERTaTokenizer, {"vocab.json": b"[1]"}, "vocab.json", "not a JSON object but list"),
        (RoBERTaTokenizer, {"vocab.json": b"[" * 10**5}, "vocab.json", "not a valid vocabulary"),
        (RoBERTaTokenizer, {"vocab.json": b'{"\xff": 1}'}, "vocab.json", "not UTF-8"),
        (RoBERTaTokenizer, {"vocab.json": b'{"a": 1, "a": 2}'}, "vocab.json", "'a' stands twice"),
        (RoBERTaTokenizer, {"vocab.json": b'{"a": 1, "b": 1}'}, "vocab.json", "the same id 1"),
        (RoBERTaTokenizer, {"vocab.json": b'{"a": 1.5}'}, "vocab.json", "must be a number"),
        (RoBERTaTokenizer, {"vocab.json": b'{"a": true}'}, "vocab.json", "must be a number"),
        (
            RoBERTaTokenizer,
            {"vocab.json": b'{"</s>": 0}', "merges.txt": b"#version: 0.2"},
            "vocab.json",
            "contain '<s>' piece",
        ),
        (RoBERTaTokenizer, {"merges.txt": b""}, "merges.txt", "must be `#version: 0.2`"),
        (RoBERTaTokenizer, {"merges.txt": b"a b\n"}, "merges.txt", "`#version: 0.2`, was: a b"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"a\n"}, "merges.txt", "line 3: a merge has"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"\nb a"}, "merges.txt", "line 3: a merge has"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"a  b"}, "merges.txt", "line 3: a merge has"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"a b c"}, "merges.txt", "line 3: a merge has"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"a b"}, "merges.txt", "merge of line 2 again"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"\xff b"}, "merges.txt", "not UTF-8"),
        (RoBERTaTokenizer, {"merges.txt": MERGES + b"b a"}, "merges.txt", "'ba' is not in the"),
        (LlamaTokenizer, {"tokenizer.model": b""}, "tokenizer.model", "not a SentencePiece"),
        (LlamaTokenizer, {"tokenizer.model": b"\x08"}, "tokenizer.model", "not a SentencePiece"),
        (
            XLMRTokenizer,
            {"sentencepiece.bpe.model": b"version https"},
            "sentencepiece.bpe.model",
            "not a SentencePiece",
        ),
    ],
)
def test_broken_files_are_refused_by_name(kind, files, name, message):
    if kind is RoBERTaTokenizer:
        files = {"vocab.json": BYTES, "merges.txt": MERGES, **files}
    with pytest.raises(ValueError, match=message) as refusal:
        from_repo(kind, files)
    assert f"memory/{name}" in str(refusal.value)


def test_blank_lines_at_the_end_of_merges_are_no_merges():
    files = {"vocab.json": BYTES, "merges.txt": MERGES + b"\n\n"}
    assert from_repo(RoBERTaTokenizer, files)(["ab"]).ids == [[0, 4, 1]]


def test_files_that_lie_somewhere_are_named_by_their_path(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"a\n")
    for file in (path, LocalFile(path)):
        with pytest.raises(ValueError, match="special pieces") as refusal:
            BERTTokenizer.from_files(vocab_file=file)
        assert str(path) in str(refusal.value)
    with pytest.raises(FileNotFoundError):
        BERTTokenizer.from_files(vocab_file=tmp_path / "nothing")


def test_the_documented_names_are_exported():
    from curated_transformers.tokenizers import legacy

    assert sorted(legacy.__all__) == sorted(
        [
            "BERTTokenizer",
            "ByteBPETokenizer",
            "CamemBERTTokenizer",
            "LlamaTokenizer",
            "LegacyTokenizer",
            "PostDecoder",
            "PostEncoder",
            "PreDecoder",
            "PreEncoder",
            "RoBERTaTokenizer",
            "SentencePieceTokenizer",
            "WordPieceTokenizer",
            "XLMRTokenizer",
        ]
    )

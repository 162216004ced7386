"""The generators of single models: which one a name chooses, the prompts that it writes, what ends
a text, and where they are loaded from."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil

import pytest
import small_models
from byte_tokenizer import EOS_ID, byte_tokenizer

from curated_transformers.generation import (
    AutoGenerator,
    DefaultGenerator,
    DollyV2Generator,
    FalconGenerator,
    FromHF,
    GeneratorWrapper,
    GreedyGeneratorConfig,
    LlamaGenerator,
    MPTGenerator,
    SampleGeneratorConfig,
    dolly_v2,
    falcon,
    llama,
    mpt,
)
from curated_transformers.models import AutoCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig
from curated_transformers.repository import FsspecRepository, LocalRepository, Repository
from curated_transformers.tokenizers import Tokenizer
from curated_transformers.tokenizers.legacy import BERTTokenizer

DOLLY = ["### Instruction:", "### Response:", "### End"]
END_ID = EOS_ID + 3
N_PIECES = EOS_ID + 1 + len(DOLLY)
BY_NAME = [
    ("databricks/dolly-v2-3b", DollyV2Generator),
    ("tiiuae/Falcon-7B", FalconGenerator),
    ("meta-llama/Llama-2-7b-hf", LlamaGenerator),
    ("org/open_llama_3b", LlamaGenerator),
    ("mosaicml/MPT-7B", MPTGenerator),
    ("org/mpt-falcon-llama-Dolly-V2", DollyV2Generator),
    ("org/falcon-mpt", FalconGenerator),
    ("llama-org/mpt", LlamaGenerator),
    ("org/mistral", DefaultGenerator),
    ("org/dolly", DefaultGenerator),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a byte tokenizer that has Dolly's pieces as well."""
    folder = small_models.llama(tmp_path_factory.mktemp("small") / "m", pieces=N_PIECES, spread=4)
    (folder / "tokenizer.json").write_text(byte_tokenizer(special=DOLLY).tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return AutoCausalLM.from_path(folder)


@pytest.fixture
def named(folder, tmp_path):
    """The model in a folder of another name, with more files."""

    def copy(name, **files):
        target = tmp_path / name
        shutil.copytree(folder, target)
        for stem, value in files.items():
            path = target / f"{stem}.json"
            old = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(old | value))
        return target

    return copy


def written(generator, prompt):
    """A prompt as the model gets it, special pieces included."""
    tokenizer = generator.generator.tokenizer
    (text,) = tokenizer.decode(
        generator.generator.encode(generator.preprocess_prompts([prompt])),
        skip_special_pieces=False,
    )
    return text


def make(kind, model):
    return kind(byte_tokenizer(special=DOLLY), model)


def test_dolly_writes_its_published_prompt(model):
    # https://huggingface.co/databricks/dolly-v2-12b/blob/main/instruct_pipeline.py
    assert written(make(DollyV2Generator, model), " What is spaCy?\n") == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n What is spaCy?\n\n\n### Response:\n"
    )


def test_dollys_marks_are_pieces_even_where_the_prompt_spells_them(model):
    generator = make(DollyV2Generator, model)
    (ids,) = generator.generator.encode(generator.preprocess_prompts(["x"]))
    assert [id for id in ids if id > EOS_ID] == [EOS_ID + 1, EOS_ID + 2]
    assert ids[-2:] == [EOS_ID + 2, ord("\n")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FalconGenerator, "a  b\n"),
        (LlamaGenerator, " \ta  b \n"),
        (MPTGenerator, " \ta  b \n"),
        (DefaultGenerator, " \ta  b \n"),
    ],
)
def test_what_the_others_do_with_a_prompt(model, kind, expected):
    assert written(make(kind, model), " \ta  b \n") == expected


def test_a_stream_has_the_same_prompt(model):
    generator = make(FalconGenerator, model)
    config = GreedyGeneratorConfig(max_generated_pieces=9)
    assert "".join(generator.stream(" a ", config)) == generator([" a "], config)[0]
    plain = make(DefaultGenerator, model)
    assert generator([" a "], config) == plain(["a\n"], config) != plain([" a "], config)


@pytest.mark.parametrize(
    ("kind", "eos", "n", "top_p"),
    [
        (DollyV2Generator, END_ID, 256, 0.92),
        (FalconGenerator, EOS_ID, 200, 1.0),
        (LlamaGenerator, EOS_ID, 200, 1.0),
        (MPTGenerator, EOS_ID, 200, 1.0),
        (DefaultGenerator, EOS_ID, 200, 1.0),
    ],
)
def test_defaults(model, kind, eos, n, top_p):
    expected = SampleGeneratorConfig(eos_id=eos, max_generated_pieces=n, top_p=top_p)
    assert make(kind, model).default_config == expected


def test_only_end_and_length_of_the_defaults_count(model):
    given = SampleGeneratorConfig({3}, temperature=0.5, top_k=7)
    completed = make(DollyV2Generator, model).complete(given)
    assert completed == dataclasses.replace(given, eos_id=END_ID, max_generated_pieces=256)
    given = SampleGeneratorConfig(eos_id=5, max_generated_pieces=6)
    assert make(DollyV2Generator, model).complete(given) == given


def test_dolly_needs_its_own_tokenizer(model):
    pieces = ["[CLS]", "[SEP]", "[UNK]", "a"]
    legacy = BERTTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    with pytest.raises(ValueError, match="a Tokenizer, got BERTTokenizer"):
        DollyV2Generator(legacy, model)
    with pytest.raises(ValueError, match="no piece `### End`"):
        DollyV2Generator(byte_tokenizer(), model)


def test_a_tokenizer_without_a_chat_template_says_so(model):
    pieces = ["[CLS]", "[SEP]", "[UNK]", "a"]
    generator = DefaultGenerator(
        BERTTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}), model
    )
    messages = [{"role": "user", "content": "a"}]
    config = GreedyGeneratorConfig()
    with pytest.raises(ValueError, match="BERTTokenizer has no chat template"):
        generator.chat(messages, config)
    with pytest.raises(ValueError, match="BERTTokenizer has no chat template"):
        generator.stream(messages, config)
    without = DefaultGenerator(byte_tokenizer(chat_template=None), model)
    with pytest.raises(ValueError, match="no default chat template"):
        without.chat(messages, config)


def test_they_are_wrappers_and_importable_where_documented():
    for kind in (DollyV2Generator, FalconGenerator, LlamaGenerator, MPTGenerator):
        assert issubclass(kind, DefaultGenerator)
    assert issubclass(DefaultGenerator, GeneratorWrapper)
    assert issubclass(DefaultGenerator, FromHF)
    modules = [dolly_v2.DollyV2Generator, falcon.FalconGenerator, llama.LlamaGenerator]
    assert modules == [DollyV2Generator, FalconGenerator, LlamaGenerator]
    assert mpt.MPTGenerator is MPTGenerator
    with pytest.raises(TypeError, match="abstract"):
        GeneratorWrapper()


# ---- loading ----


@pytest.mark.parametrize(("name", "kind"), BY_NAME)
def test_the_name_on_the_hub_chooses_the_generator(hub, folder, name, kind):
    hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert type(AutoGenerator.from_hf_hub(name=name)) is kind


@pytest.mark.parametrize(("name", "kind"), BY_NAME)
def test_the_name_of_a_folder_chooses_the_generator(named, name, kind):
    if "/mpt" in name and "-" in name.partition("/")[0]:
        kind = MPTGenerator  # a folder is not of an organization
    path = named(name.rpartition("/")[2])
    assert type(AutoGenerator.from_path(path)) is kind
    assert type(AutoGenerator.from_path(str(path))) is kind
    assert type(AutoGenerator.from_repo(repo=LocalRepository(path))) is kind


def test_a_generator_can_be_loaded_by_its_class_from_anywhere(hub, folder, monkeypatch):
    fsspec = pytest.importorskip("fsspec.implementations.local")
    hub.add("org/any", {path.name: path.read_bytes() for path in folder.iterdir()})
    config = GreedyGeneratorConfig(max_generated_pieces=6)
    expected = make(DefaultGenerator, AutoCausalLM.from_path(folder))(["a\n"], config)
    files = fsspec.LocalFileSystem()
    loaded = [
        FalconGenerator.from_hf_hub(name="org/any", revision="main"),
        FalconGenerator.from_path(folder),
        FalconGenerator.from_repo(repo=FsspecRepository(files, str(folder))),
        FalconGenerator.from_fsspec(fs=files, model_path=str(folder)),
    ]
    for generator in loaded:
        assert type(generator) is FalconGenerator
        assert generator(["a"], config) == expected
    assert type(AutoGenerator.from_fsspec(fs=files, model_path=str(folder))) is DefaultGenerator


@pytest.mark.parametrize("kind", [AutoGenerator, LlamaGenerator])
def test_what_is_cached_loads_without_the_hub(hub, folder, kind, monkeypatch):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["generation_config.json"] = json.dumps({"eos_token_id": [7, EOS_ID]}).encode()
    hub.add("org/llama", files)
    kind.from_hf_hub_to_cache(name="org/llama")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    generator = kind.from_hf_hub(name="org/llama")
    assert type(generator) is LlamaGenerator
    assert generator.end_ids == {7, EOS_ID}
    assert hub.seen == []


def test_device_dtype_and_quantization_reach_the_model(named):
    path = named("falcon")
    assert AutoGenerator.from_path(path, dtype="float16").generator.inner.model.dtype == "float16"
    for load in (AutoGenerator.from_path, FalconGenerator.from_path):
        with pytest.raises(NotImplementedError, match="cuda"):
            load(path, device="cuda:0")
        generator = load(path, quantization_config=BitsAndBytesConfig.for_4bit())
        assert "matrices in fp4" in repr(generator.generator.inner.model)


@pytest.mark.parametrize("name", ["bert", "my-llama"])
def test_what_is_no_causal_model_is_refused(tmp_path, hub, name):
    folder = small_models.bert(tmp_path / name)
    hub.add(f"org/{name}", {path.name: path.read_bytes() for path in folder.iterdir()})
    variants = r"\['dolly-v2', 'falcon', 'llama', 'mpt', 'any other causal .*"
    for load in (
        lambda: AutoGenerator.from_path(folder),
        lambda: AutoGenerator.from_hf_hub(name=f"org/{name}"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"Unsupported generator model `(org/)?{name}`. Supported model variants: "
            rf"{variants}model_type `bert`",
        ):
            load()


def test_a_missing_model_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="Cannot load config"):
        AutoGenerator.from_path(tmp_path / "llama")


@pytest.mark.parametrize("name", ["sha256-1234", "model.bin"])
def test_a_gguf_file_may_have_any_name(smollm2, tmp_path, name):
    (tmp_path / name).symlink_to(smollm2)
    config = GreedyGeneratorConfig(max_generated_pieces=3)
    expected = AutoGenerator.from_path(smollm2)(["Hello"], config)
    for kind in (AutoGenerator, DefaultGenerator):
        assert kind.from_path(tmp_path / name)(["Hello"], config) == expected
    assert AutoCausalLM.from_path(tmp_path / name).config.embedding.n_pieces == 49152


def test_a_folder_may_be_named_as_a_file(folder, tmp_path):
    (tmp_path / "small.gguf").symlink_to(folder)
    for kind in (AutoGenerator, DefaultGenerator):
        generator = kind.from_path(tmp_path / "small.gguf")
        assert len(generator(["a"], GreedyGeneratorConfig(max_generated_pieces=3))) == 1


def test_what_is_neither_a_folder_nor_a_gguf_file_is_refused(folder, tmp_path):
    with pytest.raises(OSError, match=r"Cannot load config .*Not a directory"):
        AutoGenerator.from_path(folder / "tokenizer.json")
    (tmp_path / "broken.gguf").write_text("broken")
    with pytest.raises(ValueError, match="not a valid GGUF file"):
        AutoGenerator.from_path(tmp_path / "broken.gguf")
    with pytest.raises(FileNotFoundError, match=r"misspelt\.gguf"):
        AutoGenerator.from_path(tmp_path / "misspelt.gguf")


def test_loading_has_the_documented_arguments():
    documented = ["name", "revision", "device", "quantization_config"]
    for kind in (AutoGenerator, DefaultGenerator, DollyV2Generator):
        assert set(documented) <= set(inspect.signature(kind.from_hf_hub).parameters)
        assert list(inspect.signature(kind.from_hf_hub_to_cache).parameters) == documented[:2]


# ---- what ends a text ----


def chosen(model, n):
    """The greedy pieces after the prompt "a"."""
    ids, pieces = [ord("a")], []
    for _ in range(n):
        pieces.append(int(model([ids]).logits.numpy()[0, -1].argmax()))
        ids.append(pieces[-1])
    return pieces


@pytest.mark.parametrize("file", ["generation_config", "config"])
@pytest.mark.parametrize("as_list", [True, False])
def test_every_end_piece_that_the_repository_names_ends_a_text(named, model, file, as_list):
    pieces = chosen(model, 12)
    end = next(i for i in range(3, 12) if pieces[i] not in pieces[:i])
    ends = [pieces[end], EOS_ID] if as_list else pieces[end]
    generator = AutoGenerator.from_path(named("m2", **{file: {"eos_token_id": ends}}))
    config = GreedyGeneratorConfig(max_generated_pieces=12)
    expected = generator.generator.tokenizer.decode([pieces[:end]])
    assert generator(["a"], config) == expected
    assert "".join(generator.stream("a", config)) == expected[0]
    # A configuration that names an end of its own means that one.
    other = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=12)
    assert generator(["a"], other) == generator.generator.tokenizer.decode([pieces])


def test_a_chats_reply_ends_at_the_tokenizers_piece_and_at_those_of_the_repository(named):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    path = named(
        "chat",
        generation_config={"eos_token_id": [5, 6]},
        tokenizer_config={"chat_template": template},
    )
    generator = AutoGenerator.from_path(path)
    assert set(generator.complete(GreedyGeneratorConfig()).eos_ids) == {5, 6, EOS_ID}
    config = GreedyGeneratorConfig(max_generated_pieces=8)
    messages = [{"role": "user", "content": "a"}]
    assert generator.chat(messages, config) == generator(["a"], config)[0]
    assert "".join(generator.stream(messages, config)) == generator.chat(messages, config)


def test_a_reply_that_has_begun_goes_on(model):
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}{{ mark }}"
    generator = DefaultGenerator(byte_tokenizer(chat_template=template), model)
    config = GreedyGeneratorConfig(max_generated_pieces=8)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert generator.chat(messages, config) == generator(["<a><b"], config)[0]
    assert "".join(generator.stream(messages, config)) == generator(["<a><b"], config)[0]
    options = {"mark": "!"}
    reply = generator.chat(messages[:1], config, template_options=options)
    assert reply == generator(["<a>!"], config)[0]
    assert "".join(generator.stream(messages[:1], config, template_options=options)) == reply


def test_generation_config_wins_over_config(named):
    path = named("m", generation_config={"eos_token_id": 7}, config={"eos_token_id": 8})
    assert DefaultGenerator.from_path(path).end_ids == {7}
    path = named("n", generation_config={"temperature": 1}, config={"eos_token_id": 8})
    assert DefaultGenerator.from_path(path).end_ids == {8}


def test_dolly_ends_at_its_mark_only(named):
    path = named("dolly-v2", generation_config={"eos_token_id": 0})
    generator = AutoGenerator.from_path(path)
    assert generator.complete(GreedyGeneratorConfig()).eos_id == END_ID


@pytest.mark.parametrize("value", ["x", [1, "x"], -1, 1.5, True, {"a": 1}])
def test_absurd_end_pieces_are_refused(named, value):
    with pytest.raises(ValueError, match=r"generation_config.json: `eos_token_id` must be"):
        AutoGenerator.from_path(named("m", generation_config={"eos_token_id": value}))


def test_a_generator_takes_its_tokenizer_from_any_repository(folder):
    class Own(LocalRepository):
        """Somebody's own kind of repository, of which only four methods are known."""

        def pretty_path(self, path=None):
            return f"own:/models/some-falcon/{path or ''}"

    generator = AutoGenerator.from_repo(repo=wrapped(Own(folder)))
    assert type(generator) is FalconGenerator
    assert isinstance(generator.generator.tokenizer, Tokenizer)


def wrapped(repo):
    """Only the four methods of a repository."""

    class Bare(Repository):
        def file(self, path):
            return repo.file(path)

        def pretty_path(self, path=None):
            return repo.pretty_path(path)

        def transaction(self):
            return repo.transaction()

    return Bare()

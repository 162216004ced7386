"""Sentence vectors: `encode` against pooling by hand, and what sentence-transformers' files say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_models

from curated_transformers.models import BERTEncoder
from curated_transformers.tokenizers import Tokenizer

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d", "cat", "dog", "Cat")
TEXTS = ["a b c", "dog", "", "cat cat a d b " * 6, "d", "b a", "c c c c c"]
POSITIONS = 40


def word_tokenizer() -> Tokenizer:
    """One piece a word, `[CLS]` before and `[SEP]` behind each text."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return Tokenizer(tokenizer=engine, config=None, special_tokens_map=None)


def ids_of(text: str, longest: int = POSITIONS) -> list[int]:
    words = [WORDS.index(word) if word in WORDS else 3 for word in text.split()]
    return [1, *words[: longest - 2], 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = small_models.bert(tmp_path_factory.mktemp("bert"), positions=POSITIONS)
    (path / "tokenizer.json").write_text(word_tokenizer().tokenizer.to_str())
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return BERTEncoder.from_path(folder)


def by_hand(encoder, ids: list[int], pooling: str) -> np.ndarray:
    states = np.asarray(encoder(np.array([ids])).last_hidden_layer_state)[0].astype(np.float64)
    if pooling == "mean":
        return states.mean(axis=0)
    return states[0] if pooling == "cls" else states.max(axis=0)


@pytest.fixture
def sentence_folder(folder, tmp_path):
    """A copy of the folder to which a test adds what sentence-transformers would write."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def write_modules(folder, *kinds: str, **pooling: object) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    for number, kind in enumerate(kinds, 1):
        path = f"{number}_{kind}"
        kind = f"sentence_transformers.models.{kind}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": kind})
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_vectors_are_the_pooled_hidden_states_in_the_order_of_the_texts(encoder, pooling):
    expected = np.stack([by_hand(encoder, ids_of(text), pooling) for text in TEXTS])
    vectors = encoder.encode(TEXTS, pooling=pooling, normalize=False)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, pooling=pooling), expected, rtol=0, atol=2e-6)


def test_without_any_word_about_pooling_it_is_the_mean(encoder):
    np.testing.assert_array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS, pooling="mean"))


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"max_batch_tokens": 1}])
def test_batches_change_no_more_than_the_order_of_summation(encoder, options):
    # Large products may be of another kernel for another number of rows.
    np.testing.assert_allclose(
        encoder.encode(TEXTS, **options), encoder.encode(TEXTS), rtol=0, atol=1e-6
    )


def test_a_batch_holds_at_most_as_many_pieces_and_texts_as_it_may(encoder, monkeypatch):
    seen = []
    run = encoder._run_pooled

    def spy(ids, mask, pooling):
        seen.append((len(ids), int(mask.sum())))
        return run(ids, mask, pooling)

    monkeypatch.setattr(encoder, "_run_pooled", spy)
    encoder.encode(["a b"] * 10, max_batch_tokens=14)  # four pieces each
    assert seen == [(3, 12), (3, 12), (3, 12), (1, 4)]
    seen.clear()
    encoder.encode(["a b"] * 5, batch_size=2)
    assert seen == [(2, 8), (2, 8), (1, 4)]


def test_a_single_text_gives_a_vector_and_none_an_empty_matrix(encoder):
    np.testing.assert_allclose(encoder.encode("a b c"), encoder.encode(TEXTS)[0], rtol=0, atol=1e-6)
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.encode(text for text in TEXTS).shape == (len(TEXTS), 32)


def test_long_texts_are_cut_before_the_piece_that_ends_them(encoder):
    long = "a b c d " * 30
    vector = encoder.encode(long, pooling="max", normalize=False)
    np.testing.assert_allclose(
        vector, by_hand(encoder, ids_of(long), "max"), rtol=0, atol=2e-6
    )  # the model's positions
    vector = encoder.encode(long, pooling="max", normalize=False, max_length=7)
    np.testing.assert_allclose(vector, by_hand(encoder, ids_of(long, 7), "max"), rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="no room beside the 2"):
        encoder.encode(long, max_length=2)


def test_a_tokenizer_of_the_callers_own(folder):
    class Reversed:
        def __call__(self, texts):
            return word_tokenizer()([" ".join(reversed(text.split())) for text in texts])

    encoder = BERTEncoder.from_path(folder)
    np.testing.assert_array_equal(
        encoder.encode("a b c", tokenizer=Reversed()), encoder.encode("c b a")
    )


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_repository_decides_about_pooling(sentence_folder, encoder, config, pooling):
    write_modules(sentence_folder, "Pooling", "Normalize", **config)
    ours = BERTEncoder.from_path(sentence_folder)
    np.testing.assert_array_equal(ours.encode(TEXTS), encoder.encode(TEXTS, pooling=pooling))
    np.testing.assert_array_equal(
        ours.encode(TEXTS, pooling="max"), encoder.encode(TEXTS, pooling="max")
    )


@pytest.mark.parametrize(
    ("kinds", "config", "named"),
    [
        (("Pooling",), {"pooling_mode_lasttoken": True}, "lasttoken"),
        (("Pooling",), {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "max"),
        (("Pooling",), {}, "nothing"),
        (("Pooling", "Dense"), {"pooling_mode_mean_tokens": True}, "Dense"),
    ],
)
def test_what_is_not_supported_is_named_unless_pooling_is_given(
    sentence_folder, encoder, kinds, config, named
):
    write_modules(sentence_folder, *kinds, **config)
    ours = BERTEncoder.from_path(sentence_folder)
    with pytest.raises(ValueError, match=named):
        ours.encode(TEXTS)
    np.testing.assert_array_equal(
        ours.encode(TEXTS, pooling="cls"), encoder.encode(TEXTS, pooling="cls")
    )


def test_the_repository_decides_about_length_case_and_prompt(sentence_folder, encoder):
    write_modules(sentence_folder, "Pooling", pooling_mode_mean_tokens=True)
    (sentence_folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 6, "do_lower_case": True})
    )
    (sentence_folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "dog "}, "default_prompt_name": "query"})
    )
    ours = BERTEncoder.from_path(sentence_folder)
    np.testing.assert_array_equal(ours.encode("Cat a b c d"), encoder.encode("dog cat a b"))


def test_errors_say_what_is_wrong(encoder, folder, sentence_folder):
    with pytest.raises(ValueError, match="Non-string inputs: int"):
        encoder.encode(["a", 3])
    with pytest.raises(ValueError, match="mean, cls or max"):
        encoder.encode(["a"], pooling="sum")
    for name in ("batch_size", "max_batch_tokens", "max_length"):
        with pytest.raises(ValueError, match=name):
            encoder.encode(["a"], **{name: 0})
    bare = BERTEncoder(encoder.config)
    bare.load_state_dict(encoder.state_dict())
    with pytest.raises(RuntimeError, match="tokenizer"):
        bare.encode(["a"])
    (sentence_folder / "modules.json").write_text("[")
    with pytest.raises(ValueError, match=r"modules\.json"):
        BERTEncoder.from_path(sentence_folder).encode(["a"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("modules.json", "[" * 100_000, "not valid JSON"),
        ("modules.json", "[1]", "a step must be an object, is 1"),
        ("modules.json", '[{"type": "a.Pooling", "path": "../.."}]', "not a relative path"),
        ("modules.json", '[{"type": "a.Pooling"}]', "pooling by nothing"),
        ("1_Pooling/config.json", "[1]", "not a JSON object but list"),
        ("1_Pooling/config.json", '{"pooling_mode": [1]}', "is not supported"),
        ("sentence_bert_config.json", '{"max_seq_length": "6"}', "must be a length, is '6'"),
        ("sentence_bert_config.json", '{"max_seq_length": 0}', "must be a length, is 0"),
        ("sentence_bert_config.json", "7", "not a JSON object but int"),
        ("config_sentence_transformers.json", '{"default_prompt_name": [1]}', "must name one"),
        (
            "config_sentence_transformers.json",
            '{"default_prompt_name": "a", "prompts": {"a": 1}}',
            "must name one",
        ),
        (
            "config_sentence_transformers.json",
            '{"default_prompt_name": "a", "prompts": [1]}',
            "must name one",
        ),
    ],
)
def test_broken_files_are_refused(name, value, message, sentence_folder):
    write_modules(sentence_folder, "Pooling", pooling_mode_mean_tokens=True)
    (sentence_folder / name).write_text(value)
    with pytest.raises(ValueError, match=message):
        BERTEncoder.from_path(sentence_folder).encode(["a"])


def test_progress_counts_texts(encoder, capsys):
    encoder.encode(TEXTS, progress=True, batch_size=2)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_the_bar_is_closed_when_a_batch_fails(encoder, capsys, monkeypatch):
    def fail(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(BERTEncoder, "_run_pooled", fail)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(TEXTS, progress=True)
    assert capsys.readouterr().err.endswith("\n")

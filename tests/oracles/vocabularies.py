"""Small vocabularies, and how transformers and sentencepiece split text with them.

    make golden     # runs this file: writes tests/golden/tokenizers/

`vocab.txt` is WordPiece, `vocab.json` and `merges.txt` byte BPE, `unigram.model` and `bpe.model`
SentencePiece: the former with a normalization table of a few rules, the latter without one, with
byte fallback and white space kept, as XLM-R's and Llama's are. `bpe.json` is the latter as GGUF
files have it. `expected.json` holds for each
tokenizer the ids, pieces and decoded texts of `tokenizer_texts.TEXTS`.

Splitting with SentencePiece is what the sentencepiece package does, as transformers' conversion of
these models treats white space and control characters differently; the numbers of the pieces are
those of transformers.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import transformers
from tokenizer_texts import SENTENCES, TEXTS
from tokenizers import models, normalizers, pre_tokenizers, trainers

GOLDEN = Path(__file__).parent.parent / "golden" / "tokenizers"
TRAINING_TEXTS = [*SENTENCES, *(text.lower() for text in SENTENCES)] * 2

BERT_OPTIONS: dict[str, dict[str, Any]] = {
    "bert_cased": {"do_lower_case": False},
    "bert_uncased": {"do_lower_case": True},
    "bert_uncased_accents": {"do_lower_case": True, "strip_accents": False},
    "bert_cased_no_accents": {"do_lower_case": False, "strip_accents": True},
    "bert_no_chinese": {"do_lower_case": False, "tokenize_chinese_chars": False},
}

# Source and target of normalization rules, as hexadecimal code points.
NORMALIZATION_RULES = (
    "9\t20",
    "A\t20",
    "A0\t20",
    "3000\t20",
    "FB01\t66 69",
    "65 301\tE9",
    "FF26\t46",
)


def train_wordpiece() -> list[str]:
    """Pieces in the order of their ids."""
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=False)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=1000, special_tokens=special, show_progress=False
    )
    engine.train_from_iterator(TRAINING_TEXTS, trainer)
    return sorted(engine.get_vocab(), key=engine.get_vocab().__getitem__)


def train_byte_bpe() -> tuple[dict[str, int], list[str]]:
    """Ids by piece, and merges."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(TRAINING_TEXTS, trainer)
    model = json.loads(engine.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return model["vocab"], merges


def train_sentencepiece(**options: Any) -> bytes:
    """A model file."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING_TEXTS),
        model_writer=model,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def train_unigram() -> bytes:
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("".join(f"{rule}\n" for rule in NORMALIZATION_RULES))
        rules.flush()
        return train_sentencepiece(
            model_type="unigram", vocab_size=600, normalization_rule_tsv=rules.name
        )


def train_bpe() -> bytes:
    return train_sentencepiece(
        model_type="bpe",
        vocab_size=800,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
    )


def gguf_vocabulary() -> dict[str, Any]:
    """What a GGUF file says of `bpe.model`: pieces, their scores, and types by their numbers."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(GOLDEN / "bpe.model"))
    ids = range(processor.vocab_size())
    kinds = [
        2 * processor.is_unknown(i) or 3 * processor.is_control(i) or 6 * processor.is_byte(i) or 1
        for i in ids
    ]
    return {
        "tokens": [processor.id_to_piece(i) for i in ids],
        "scores": [processor.get_score(i) for i in ids],
        "token_type": kinds,
    }


def hf_bert(vocab: str | dict[str, int], name: str) -> Any:
    return transformers.BertTokenizer(vocab=vocab, **BERT_OPTIONS[name])


def hf_roberta(vocab: Any, merges: Any) -> Any:
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges)


def hf_sentencepiece(kind: str, model: Path) -> Any:
    """transformers' tokenizer of a SentencePiece model alone in its repository."""
    tokenizer, name = {
        "llama": (transformers.LlamaTokenizer, "tokenizer.model"),
        "xlmr": (transformers.XLMRobertaTokenizer, "sentencepiece.bpe.model"),
        "camembert": (transformers.CamembertTokenizer, "sentencepiece.bpe.model"),
    }[kind]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, Path(folder) / name)
        return tokenizer.from_pretrained(folder)


def run_hf(tokenizer: Any, texts: Sequence[str], clean_up: bool = False) -> dict[str, Any]:
    ids = tokenizer(list(texts))["input_ids"]
    return {
        "ids": ids,
        "pieces": [tokenizer.convert_ids_to_tokens(element) for element in ids],
        "texts": tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean_up
        ),
    }


def run_sentencepiece(
    processor: Any, numbers: Any, around: tuple[list[str], list[str]], texts: Sequence[str]
) -> dict[str, Any]:
    """Splits with sentencepiece; ``numbers`` is transformers' tokenizer, ``around`` the pieces that
    the tokenizer adds."""
    result: dict[str, Any] = {"ids": [], "pieces": [], "texts": []}
    for text in texts:
        own_ids = processor.encode(text)
        pieces = processor.encode(text, out_type=str)
        known = [
            numbers.unk_token if own == processor.unk_id() else processor.id_to_piece(own)
            for own in own_ids
        ]
        before, behind = around
        result["ids"].append(numbers.convert_tokens_to_ids([*before, *known, *behind]))
        result["pieces"].append([*before, *pieces, *behind])
        result["texts"].append(processor.decode(own_ids))
    return result


def write_vocabularies() -> None:
    """Trains what does not exist yet: the trainers do not give the same result each time."""
    GOLDEN.mkdir(exist_ok=True)
    if not (GOLDEN / "vocab.txt").exists():
        text = "".join(f"{piece}\n" for piece in train_wordpiece())
        (GOLDEN / "vocab.txt").write_text(text, "utf-8")
    if not (GOLDEN / "vocab.json").exists():
        vocab, merges = train_byte_bpe()
        (GOLDEN / "vocab.json").write_text(json.dumps(vocab), "utf-8")
        text = "".join(f"{line}\n" for line in ("#version: 0.2", *merges))
        (GOLDEN / "merges.txt").write_text(text, "utf-8")
    for name, train in (("unigram.model", train_unigram), ("bpe.model", train_bpe)):
        if not (GOLDEN / name).exists():
            (GOLDEN / name).write_bytes(train())


def read_wordpiece() -> dict[str, int]:
    pieces = (GOLDEN / "vocab.txt").read_text("utf-8").splitlines()
    return {piece: number for number, piece in enumerate(pieces)}


def read_byte_bpe() -> tuple[dict[str, int], list[tuple[str, ...]]]:
    lines = (GOLDEN / "merges.txt").read_text("utf-8").splitlines()[1:]
    vocab = json.loads((GOLDEN / "vocab.json").read_text("utf-8"))
    return vocab, [tuple(line.split(" ")) for line in lines]


def main() -> None:
    write_vocabularies()
    vocabulary = json.dumps(gguf_vocabulary(), ensure_ascii=False)
    (GOLDEN / "bpe.json").write_text(vocabulary, "utf-8")
    expected = {name: run_hf(hf_bert(read_wordpiece(), name), TEXTS, True) for name in BERT_OPTIONS}
    expected["roberta"] = run_hf(hf_roberta(*read_byte_bpe()), TEXTS)
    for kind, file, around in (
        ("llama", "bpe.model", (["<s>"], [])),
        ("xlmr", "unigram.model", (["<s>"], ["</s>"])),
        ("camembert", "unigram.model", (["<s>"], ["</s>"])),
    ):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(GOLDEN / file))
        numbers = hf_sentencepiece(kind, GOLDEN / file)
        expected[kind] = run_sentencepiece(processor, numbers, around, TEXTS)
    (GOLDEN / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main()

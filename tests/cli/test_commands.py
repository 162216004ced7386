"""The command line does what the classes do: generate, chat, encode. Errors are one line."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import small_models
from byte_tokenizer import CHAT_TEMPLATE, N_PIECES, byte_tokenizer

import curated_transformers
from curated_transformers import cli
from curated_transformers.generation import (
    AutoGenerator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.models import AutoEncoder

POSITIONS = 200


def add_tokenizer(folder, **config):
    (folder / "tokenizer.json").write_text(byte_tokenizer().tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", **config}))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "m"
    small_models.llama(folder, pieces=N_PIECES, positions=POSITIONS, spread=4)
    return add_tokenizer(folder, chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = small_models.bert(tmp_path_factory.mktemp("cli") / "bert", pieces=N_PIECES)
    return add_tokenizer(folder)


@pytest.fixture(scope="module")
def generator(llama):
    return AutoGenerator.from_path(llama)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command and gives its output; ``errors`` of the last one are kept."""

    def run(*arguments, stdin="", status=0):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert cli.main([str(argument) for argument in arguments]) == status
        out, run.errors = capsys.readouterr()
        return out

    return run


def refused(run, *arguments, **options):
    """The only line on standard error, after nothing on standard output."""
    assert run(*arguments, status=1, **options) == ""
    (line,) = run.errors.splitlines()
    assert line.startswith("curated-transformers: error: ")
    return line.removeprefix("curated-transformers: error: ")


def greedy(n):
    return GreedyGeneratorConfig(max_generated_pieces=n)


# ---- generate ----


def test_a_prompt_is_continued(run, llama, generator):
    assert run("generate", llama, "a b", "-n", 20) == generator(["a b"], greedy(20))[0] + "\n"


def test_the_default_length_is_the_generators(run, llama, generator):
    expected = generator(["Once"], GreedyGeneratorConfig())
    assert run("generate", llama, "Once") == expected[0] + "\n"


def test_several_prompts_are_told_apart(run, llama, generator):
    first, second = generator(["a", "b c"], greedy(9))
    expected = f"==> a <==\n{first}\n\n==> b c <==\n{second}\n\n"
    assert run("generate", llama, "a", "-n", 9, "b c") == expected


def test_prompts_from_standard_input(run, llama, generator):
    whole, first, second = generator(["a\nb\n", "a", "b"], greedy(9))
    assert run("generate", llama, "-n", 9, stdin="a\nb\n") == whole + "\n"
    lines = run("generate", llama, "-n", 9, "--lines", "--json", stdin="a\nb\n").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"prompt": "a", "text": first},
        {"prompt": "b", "text": second},
    ]


def test_drawing_options(run, llama, generator):
    config = SampleGeneratorConfig(
        max_generated_pieces=15, temperature=0.7, top_k=9, top_p=0.8, seed=4
    )
    out = run(
        *("generate", llama, "a", "-n", 15, "-t", 0.7, "--top-k", 9, "--top-p", 0.8, "--seed", 4)
    )
    assert out == generator(["a"], config)[0] + "\n"


DRAWN = ("-n", 40, "-t", 3, "--seed", 5)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("--min-p", 0.2), {"min_p": 0.2}),
        (("--repetition-penalty", 4), {"repetition_penalty": 4.0}),
        (("--presence-penalty", 9), {"presence_penalty": 9.0}),
        (("--frequency-penalty", 9), {"frequency_penalty": 9.0}),
    ],
)
def test_cuts_and_penalties(run, llama, generator, arguments, settings):
    def text(**settings):
        config = SampleGeneratorConfig(max_generated_pieces=40, temperature=3.0, seed=5, **settings)
        return generator(["aaaa"], config)[0]

    assert text(**settings) != text()
    assert run("generate", llama, "aaaa", *DRAWN, *arguments) == text(**settings) + "\n"


def test_penalties_count_without_a_temperature(run, llama, generator):
    config = GreedyGeneratorConfig(max_generated_pieces=40, frequency_penalty=3.0)
    penalized = generator(["a"], config)[0]
    assert penalized != generator(["a"], greedy(40))[0]
    assert run("generate", llama, "a", "-n", 40, "--frequency-penalty", 3) == penalized + "\n"


def test_a_text_ends_before_the_first_of_its_stop_strings(run, llama, generator):
    whole = generator(["a"], greedy(40))[0]
    early, late = whole[9:11], whole[20:24]
    assert whole.index(early) < whole.index(late)
    expected = whole[: whole.index(early)]
    stops = ("--stop", late, "--stop", early)
    assert run("generate", llama, "a", "-n", 40, *stops) == expected + "\n"
    assert run("generate", llama, "a", "-n", 40, "--stop", late) != expected + "\n"


def test_a_reply_ends_before_a_stop_string(run, llama, generator):
    reply = generator.chat([{"role": "user", "content": "a"}], greedy(20))
    stop = reply[7:10]
    out = run("chat", llama, "-n", 20, "--stop", stop, stdin="a\n")
    assert out == reply[: reply.index(stop)] + "\n"


def test_prompts_as_chat_messages(run, llama, generator):
    system = {"role": "system", "content": "S"}
    replies = [
        generator.chat([system, {"role": "user", "content": text}], greedy(9)) for text in "ab"
    ]
    arguments = ("generate", llama, "--chat", "--system", "S", "-n", 9)
    assert run(*arguments, "a") == replies[0] + "\n"
    assert run(*arguments, "a", "b") == (f"==> a <==\n{replies[0]}\n\n==> b <==\n{replies[1]}\n\n")


def test_a_model_on_the_hub(run, hub, llama, generator):
    hub.add("org/m", {path.name: path.read_bytes() for path in llama.iterdir()})
    assert run("generate", "org/m", "a", "-n", 5) == generator(["a"], greedy(5))[0] + "\n"
    assert "no revision `v9`" in refused(run, "generate", "org/m", "--revision", "v9", "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "3"], "--top-k has no effect without a --temperature"),
        (["--seed", "3"], "--seed has no effect"),
        (["-t", "-1"], "temperature must be"),
        (["-t", "1", "--top-p", "2"], "Top-p probability must be"),
        (["--min-p", "0.1"], "--min-p has no effect"),
        (["-t", "1", "--min-p", "2"], "Min-p probability must be"),
        (["--repetition-penalty", "0"], "repetition penalty must be above 0"),
        (["--stop", ""], "stop must be strings that are not empty"),
        (["--system", "x"], "--system has no effect without --chat"),
        (["--lines"], "--lines reads prompts from standard input"),
        (["--device", "cuda:0"], "is not available"),
        (["--dtype", "int7"], "int7"),
    ],
)
def test_options_that_make_no_sense(run, llama, arguments, message):
    assert message in refused(run, "generate", llama, "a", *arguments)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nothing", "./nothing does not exist"),
        ("/a/b/c", "/a/b/c does not exist"),
        ("a/b/c", "a/b/c does not exist"),
        ("nothing.gguf", "nothing.gguf does not exist"),
        (__file__, "is neither a folder nor a GGUF file"),
        ("org/nothing", "org/nothing"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "chat", "encode", "info"])
def test_models_that_are_not_there(run, cache, command, model, message):
    assert message in refused(run, command, model, stdin="a\n")


# ---- chat ----


def test_a_conversation_keeps_its_history(run, llama, generator):
    messages = [{"role": "system", "content": "S"}]
    replies = []
    for text in ("a", "b"):
        messages.append({"role": "user", "content": text})
        replies.append(generator.chat(messages, greedy(7)))
        messages.append({"role": "assistant", "content": replies[-1]})
    out = run("chat", llama, "--system", "S", "-n", 7, stdin="a\n\nb\n")
    assert out == "".join(reply + "\n" for reply in replies)


def test_a_message_that_is_too_long_is_told_and_forgotten(run, llama, generator):
    expected = generator.chat([{"role": "user", "content": "a"}], greedy(7))
    out = run("chat", llama, "-n", 7, stdin="x" * POSITIONS + "\na\n")
    assert out == expected + "\n"
    assert run.errors.startswith("cannot answer: ")
    assert "200 positions" in run.errors


def test_models_without_a_chat_template_cannot_chat(run, tmp_path):
    folder = small_models.llama(tmp_path / "m", pieces=N_PIECES)
    assert "chat template" in refused(run, "chat", add_tokenizer(folder), stdin="a\n")


def test_ctrl_c_stops_a_reply_and_not_the_conversation(tmp_path):
    folder = small_models.llama(tmp_path / "m", pieces=N_PIECES, spread=4)
    # Only the last message counts, so that what was said when the signal came does not.
    template = "{{ messages[-1].content }}"
    add_tokenizer(folder, chat_template=template)
    generator = AutoGenerator.from_path(folder)
    end = byte_tokenizer().piece_to_id("<eos>")
    assert end not in generator.generator.encode(generator(["a"], greedy(4000)))[0]
    process = subprocess.Popen(
        [sys.executable, "-m", "curated_transformers", "chat", str(folder), "-n", "1000000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(2):
        process.stdin.write(b"a\n")
        process.stdin.flush()
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        while b"[stopped]" not in process.stdout.readline():
            pass
    process.stdin.close()
    process.stdin = None
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out, errors) == (0, b"", b"")


# ---- encode ----


def test_vectors_are_written(run, bert, tmp_path):
    texts = ["abc", "b", "Grüße"]
    encoder = AutoEncoder.from_path(bert)
    file = tmp_path / "vectors.npy"
    assert run("encode", bert, *texts, "-o", file) == ""
    np.testing.assert_array_equal(np.load(file), encoder.encode(texts))
    run("encode", bert, "-o", file, "--pooling", "cls", "--no-normalize", stdin="abc\nb\nGrüße\n")
    expected = encoder.encode(texts, pooling="cls", normalize=False)
    np.testing.assert_array_equal(np.load(file), expected)


def test_similarities_are_printed(run, bert):
    lines = run("encode", bert, "abc", "b").splitlines()
    vectors = AutoEncoder.from_path(bert).encode(["abc", "b"])
    product = float(vectors[0] @ vectors[1])
    assert [line.split() for line in lines] == [
        ["1", "1.00", f"{product:.2f}", "abc"],
        ["2", f"{product:.2f}", "1.00", "b"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there are no texts"),
        (["a", "--no-normalize"], "--no-normalize has no effect"),
        (["a", "--max-length", "-1"], "must be at least 1"),
        (["a", "-o", "/nowhere/x.npy"], "/nowhere/x.npy"),
    ],
)
def test_encoding_that_makes_no_sense(run, bert, arguments, message):
    assert message in refused(run, "encode", bert, *arguments)


# ---- all of them ----


@pytest.mark.parametrize(
    "arguments", [[], ["frob"], ["info"], ["generate", "m", "--frob"], ["encode", "m", "-o"]]
)
def test_wrong_arguments_have_the_exit_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: curated-transformers" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "chat", "encode", "info", "cache"])
def test_every_command_has_help(command, capsys):
    for arguments in ([command, "--help"], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert command in capsys.readouterr().out


def test_warnings_are_a_line_each(run, llama, monkeypatch):
    def load(*_):
        warnings.warn("the first\nof two", stacklevel=1)
        raise RuntimeError("no\nmore")

    monkeypatch.setattr("curated_transformers.cli.options.load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("generate", llama, "a", status=1) == ""
    assert run.errors == (
        "curated-transformers: warning: the first of two\ncurated-transformers: error: no more\n"
    )


def test_a_bug_keeps_its_traceback(run, llama, monkeypatch):
    def load(*_):
        raise AssertionError

    monkeypatch.setattr("curated_transformers.cli.options.load", load)
    with pytest.raises(AssertionError):
        run("generate", llama, "a")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "curated_transformers", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_module_runs():
    out, errors = start("--version").communicate(timeout=120)
    version = curated_transformers.__version__
    assert (out, errors) == (f"curated-transformers {version}\n".encode(), b"")


def test_a_reader_that_has_enough_is_no_error(llama):
    process = start("generate", llama, "a", "-n", 150)
    process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=120)[1] == b""


@pytest.mark.parametrize(
    ("command", "error"),
    [("chat", ""), ("generate", "curated-transformers: error: prompt 0: a prompt needs at least")],
)
def test_standard_streams_may_be_closed(llama, monkeypatch, capsys, command, error):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main([command, str(llama)]) == (1 if error else 0)
    assert capsys.readouterr().err.startswith(error)


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path):
    folder = add_tokenizer(small_models.llama(tmp_path / "m", pieces=N_PIECES, spread=4))
    process = start("generate", folder, "a", "-n", 1000000)
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.strip()) == (130, b"")


def test_the_script_is_installed():
    script = os.path.join(os.path.dirname(sys.executable), "curated-transformers")
    if not os.path.exists(script):
        pytest.skip("the package is run in place, not installed")
    out = subprocess.run([script, "--version"], capture_output=True, check=True, text=True)
    assert out.stdout.startswith("curated-transformers ")

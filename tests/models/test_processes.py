"""Processes: fork and spawn after use, and Ctrl-C. Each test is a script of its own interpreter, so
that a hang or a crash is that script's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_models

TIMEOUT = 300  # seconds, for a machine that is busy with something else
HELPERS = str(Path(small_models.__file__).parent)

PREAMBLE = """
import functools, os, signal, sys, threading
import numpy as np
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.models.bert import BERTEncoder
"""


def run_script(tmp_path, code, *arguments):
    script = tmp_path / "script.py"
    script.write_text(PREAMBLE + code)
    paths = [HELPERS, os.getcwd(), os.environ.get("PYTHONPATH", "")]
    script_process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,
    )
    try:
        output, errors = script_process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(script_process.pid, signal.SIGKILL)  # with the children that it waits for
        script_process.communicate()
        raise
    assert script_process.returncode == 0, f"{script_process.returncode}\n{output}\n{errors}"
    return output


FORK = """
model = LlamaCausalLM.from_path(sys.argv[1])
encoder = BERTEncoder.from_path(sys.argv[2])
ids = np.arange(120).reshape(2, 60) % 50

def call():
    return np.asarray(model(ids).logits), np.asarray(encoder(ids).last_hidden_layer_state)

expected = call()
for generation in range(3):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same = all(np.array_equal(a, b) for a, b in zip(call(), expected))
            status = 0 if same else 2
        finally:
            os._exit(status)
    # The parent goes on at the same time.
    assert all(np.array_equal(a, b) for a, b in zip(call(), expected))
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
"""


@pytest.fixture
def folders(tmp_path):
    return (
        small_models.llama(tmp_path / "llama", layers=2),
        small_models.bert(tmp_path / "bert", positions=64),
    )


def test_a_fork_after_use_computes_the_same(tmp_path, folders):
    run_script(tmp_path, FORK, *folders)


SPAWN = """
import multiprocessing

def work(folder):
    return np.asarray(LlamaCausalLM.from_path(folder)([[1, 2, 3]]).logits)

if __name__ == "__main__":
    expected = work(sys.argv[1])
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        for result in pool.map(work, [sys.argv[1]] * 4):
            assert np.array_equal(result, expected)
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_pools_of_processes_work_after_use(tmp_path, folders, method):
    run_script(tmp_path, SPAWN, folders[0], method)


#: A thread that sends SIGINT as soon as the main thread lets go of the GIL. With a switch interval
#: of hours that is inside the call, so it is the call that has to notice.
INTERRUPT = """
def interrupted(call):
    start = threading.Event()

    def send():
        start.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10_000)
    stopped = False
    try:
        start.set()
        call()
    except KeyboardInterrupt:
        stopped = True
    sys.setswitchinterval(interval)
    thread.join()
    return stopped
"""

FORWARD = (
    INTERRUPT
    + """
model = LlamaCausalLM.from_path(sys.argv[1])
expected = np.asarray(model([[1, 2, 3]]).logits)
cache = model([[1, 2]], store_cache=True).cache
long = np.ones((1, 3000), dtype=int)
returned = []
for run in (
    functools.partial(model.core.forward, store_cache=True),
    functools.partial(model.core.forward, cache=cache[0].pages),
):
    # From map to map without the interpreter between them, which would notice the signal, too.
    assert interrupted(lambda: list(map(returned.append, map(run, [long])))), "not interrupted"
    assert not returned, "interrupted after the call"
    assert np.array_equal(np.asarray(model([[1, 2, 3]]).logits), expected)
# What the interrupted call had begun to append to the cache does not count.
rest = np.asarray(model([[3]], cache=cache).logits)
assert np.allclose(rest[:, 0], expected[:, 2], rtol=1e-4, atol=1e-5)
"""
)


def test_ctrl_c_stops_a_long_forward_call(tmp_path):
    """Layer by layer: 60 layers of 3,000 pieces take seconds, one layer does not."""
    folder = small_models.llama(tmp_path / "llama", layers=60)
    run_script(tmp_path, FORWARD, folder)


GENERATE = (
    INTERRUPT
    + """
from curated_transformers.generation import Generator, GreedyGeneratorConfig, StringGenerator

class Tokenizer:
    def __call__(self, prompts):
        return type("Pieces", (), {"ids": [[int(word) for word in p.split()] for p in prompts]})

    def decode(self, pieces):
        return [" ".join(map(str, ids)) for ids in pieces]

model = LlamaCausalLM.from_path(sys.argv[1])
generator = StringGenerator(Tokenizer(), Generator(model))
short = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=5)
endless = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=0)
prompts = ["1 2 3", "4 5"]
expected = generator(prompts, short)
assert len(expected[0].split()) == 5
for call in (lambda: generator(prompts, endless), lambda: list(generator.stream_ids([1], endless))):
    assert interrupted(call), "the generator returned"
    assert generator(prompts, short) == expected
"""
)


def test_ctrl_c_stops_the_generator(tmp_path, folders):
    run_script(tmp_path, GENERATE, folders[0])


EXIT = """
model = LlamaCausalLM.from_path(sys.argv[1])
array = np.arange(1_000_000, dtype=np.float32)
from curated_transformers import Tensor
kept = [Tensor(array), model([[1, 2]], store_cache=True), np.from_dlpack(Tensor(array))]
kept.append(kept)
sys.kept = kept

def forever():
    while True:
        model([[1, 2, 3]])

threading.Thread(target=forever, daemon=True).start()
model([[1, 2, 3]])
print("end")
"""


def test_the_interpreter_exits_while_tensors_live_and_a_daemon_computes(tmp_path, folders):
    assert run_script(tmp_path, EXIT, folders[0]).strip() == "end"

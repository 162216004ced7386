"""Ctrl-C, as a real signal to another process: a call ends within a step, and the generator works
as before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_models
from byte_tokenizer import N_PIECES, byte_tokenizer

from curated_transformers.generation import DefaultGenerator, GreedyGeneratorConfig
from curated_transformers.models.llama import LlamaCausalLM

# The child says when its batch runs, is interrupted, and says what it generates then.
CHILD = """
import asyncio, sys, threading
from byte_tokenizer import byte_tokenizer
from curated_transformers import _core
from curated_transformers.generation import *
from curated_transformers.generation import generator as module
from curated_transformers.models.llama import LlamaCausalLM

generator = DefaultGenerator(byte_tokenizer(), LlamaCausalLM.from_path(sys.argv[1]))
endless = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=10**6)
short = GreedyGeneratorConfig(max_generated_pieces=12)

def begin():
    print("begun", flush=True)

class Core:
    class Session:
        def __init__(self, *arguments, **options):
            self.inner = _core.Session(*arguments, **options)
        def run(self, *arguments):
            begin()
            return self.inner.run(*arguments)
        def __getattr__(self, name):
            return getattr(self.inner, name)

def whole(**options):
    module._core = Core
    try:
        generator(["a", "Once"], endless, **options)
    finally:
        module._core = _core

def stream():
    parts = generator.stream("a", endless)
    next(parts)
    begin()
    for _ in parts:
        pass

def pieces():
    steps = generator.generator.inner(ids=[[65]], attention_mask=[[True]], config=endless)
    next(steps)
    begin()
    for _ in steps:
        pass

def tasks():
    async def main():
        async with AsyncTextGenerator(generator) as texts:
            parts = texts.stream("a", endless)
            await anext(parts)
            begin()
            async for _ in parts:
                pass
    asyncio.run(main())

try:
    {"whole": whole, "progress": lambda: whole(progress=True), "stream": stream,
     "pieces": pieces, "tasks": tasks}[sys.argv[2]]()
except KeyboardInterrupt:
    print("interrupted", "AsyncTextGenerator" in [t.name for t in threading.enumerate()])
print(repr(generator(["a", "Once"], short)))
print(repr("".join(generator.stream("a", short))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models.llama(tmp_path_factory.mktemp("m") / "m", pieces=N_PIECES, spread=4)


@pytest.mark.parametrize("call", ["whole", "progress", "stream", "pieces", "tasks"])
def test_an_interrupted_call_leaves_the_generator_usable(folder, call):
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    generator = DefaultGenerator(byte_tokenizer(), LlamaCausalLM.from_path(folder))
    config = GreedyGeneratorConfig(max_generated_pieces=12)
    texts = generator(["a", "Once"], config)
    out = out.replace("begun\n", "")  # of further steps
    assert out == f"interrupted False\n{texts!r}\n{texts[0]!r}\n"
    assert "Traceback" not in errors
    assert ("prompts" in errors) == (call == "progress")

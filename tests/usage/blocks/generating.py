import torch
from curated_transformers.generation.config import (
   GreedyGeneratorConfig,
   SampleGeneratorConfig,
)
from curated_transformers.generation.auto_generator import AutoGenerator

generator = AutoGenerator.from_hf_hub(
   name="databricks/dolly-v2-3b", device=torch.device("cuda", index=0)
)

sample_config = SampleGeneratorConfig(temperature=1.0, top_k=2)
greedy_config = GreedyGeneratorConfig()

prompts = [
   "To which David Bowie song do these lyrics belong: \"Oh man, look at those cavemen go! It's the freakiest show\"?",
   "What is spaCy?"
]
sample_outputs = generator(prompts, config=sample_config)
greedy_outputs = generator(prompts, config=greedy_config)

print(f"Sampling outputs: {sample_outputs}")
print(f"Greedy outputs: {greedy_outputs}")

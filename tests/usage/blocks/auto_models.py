from curated_transformers.models.auto_model import (
   AutoCausalLM,
   AutoDecoder,
   AutoEncoder,
)

encoder = AutoEncoder.from_hf_hub(
   name="bert-base-uncased",
   revision="main",
)

decoder = AutoDecoder.from_hf_hub(name="databricks/dolly-v2-3b", revision="main")

lm = AutoCausalLM.from_hf_hub(name="databricks/dolly-v2-3b", revision="main")

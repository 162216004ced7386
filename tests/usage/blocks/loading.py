import torch
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.gpt_neox import GPTNeoXDecoder

encoder = BERTEncoder.from_hf_hub(
   name="bert-base-uncased",
   revision="main",
   device=torch.device("cuda", index=0),
)

decoder = GPTNeoXDecoder.from_hf_hub(name="databricks/dolly-v2-3b", revision="main")

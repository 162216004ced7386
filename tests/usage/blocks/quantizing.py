import torch
from curated_transformers.generation.auto_generator import AutoGenerator
from curated_transformers.quantization.bnb.config import BitsAndBytesConfig, Dtype4Bit

generator_8bit = AutoGenerator.from_hf_hub(
   name="databricks/dolly-v2-3b",
   device=torch.device("cuda", index=0),
   quantization_config=BitsAndBytesConfig.for_8bit(
      outlier_threshold=6.0, finetunable=False
   ),
)

generator_4bit = AutoGenerator.from_hf_hub(
   name="databricks/dolly-v2-3b",
   device=torch.device("cuda", index=0),
   quantization_config=BitsAndBytesConfig.for_4bit(
      quantization_dtype=Dtype4Bit.FP4,
      compute_dtype=torch.bfloat16,
      double_quantization=True,
   ),
)

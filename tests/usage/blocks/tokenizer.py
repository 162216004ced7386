from curated_transformers.tokenizers.auto_tokenizer import AutoTokenizer

tokenizer = AutoTokenizer.from_hf_hub(
   name="bert-base-uncased",
   revision="main",
)

import torch
from curated_transformers.models.auto_model import AutoEncoder
from curated_transformers.tokenizers.auto_tokenizer import AutoTokenizer

device = torch.device("cpu")
encoder = AutoEncoder.from_hf_hub(
   name="bert-base-uncased", revision="main", device=device
)
# Set module state to evaluation mode.
encoder.eval()

tokenizer = AutoTokenizer.from_hf_hub(
   name="bert-base-uncased",
   revision="main",
)

input_pieces = tokenizer(
   [
      "Straight jacket fitting a little too tight",
      "Space shuttle, snail shell, merry go round, conveyor belt!",
   ]
)

# Don't allocate gradients since we're only running inference.
with torch.no_grad():
   ids = input_pieces.padded_tensor(padding_id=0, pad_left=True).to(device)
   model_output = encoder(input_ids=ids)

# [batch, seq_len, width]
last_hidden_repr = model_output.last_hidden_layer_state

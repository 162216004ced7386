"""Decoding, prefill and encoding on one GPU, beside torch and what the hardware can give."""

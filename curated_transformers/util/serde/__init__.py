"""The documented import paths of what reads checkpoints; it lives in ``checkpoint``."""

"""Inference: engines that run a model, the chain from logits to tokens, generation, scoring."""

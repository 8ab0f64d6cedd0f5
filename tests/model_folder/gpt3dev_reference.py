"""GPT3-dev written from the description of its format, with numpy in double precision: an oracle that shares no code with ours.

Names as GPT-2's under `transformer.`, weights (out, in), exact GELU, MLP of 4 x hidden. Version 2 has a `window_size` W: the
query at i of an odd layer sees the keys i - W to i. Pre-LN, or each norm after its residual sum; `ln_f` last in both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

GELU = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def random_checkpoint(raw: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 weights by name for a config.json."""
    rng = np.random.default_rng(seed)
    C, heads = raw["n_embd"], raw["n_head"]
    width = heads * raw.get("d_head", C // heads)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (raw["vocab_size"], C), "wpe.weight": (raw["n_positions"], C)}
    for layer in range(raw["n_layer"]):
        h = f"h.{layer}"
        for name, (out, into) in {
            "attn.c_attn": (3 * width, C), "attn.c_proj": (C, width), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C),
        }.items():  # fmt: skip
            shapes |= {f"{h}.{name}.weight": (out, into), f"{h}.{name}.bias": (out,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{h}.{name}.weight": (C,), f"{h}.{name}.bias": (C,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    found = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape)
        gain = len(shape) == 1 and name.endswith("weight")
        found[f"transformer.{name}"] = 1 + 0.3 * values if gain else (0.2 if len(shape) > 1 else 0.3) * values
    found["lm_head.weight"] = (
        found["transformer.wte.weight"].copy()
        if raw.get("tie_word_embeddings", True)
        else 0.2 * rng.standard_normal((raw["vocab_size"], C))
    )
    return {name: value.astype(np.float32) for name, value in found.items()}


def logits(raw: dict[str, Any], weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """(B, T) token ids to (B, T, V) logits in float64."""
    w = {name.removeprefix("transformer."): value.astype(np.float64) for name, value in weights.items()}
    eps, heads = raw.get("layer_norm_epsilon", 1e-5), raw["n_head"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x: np.ndarray, name: str, window: int | None) -> np.ndarray:
        B, T, _ = x.shape
        q, k, v = (
            each.reshape(B, T, heads, -1).swapaxes(1, 2) for each in np.split(linear(x, f"{name}.c_attn"), 3, axis=-1)
        )
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, T, T)
        query, key = np.arange(T)[:, None], np.arange(T)[None]
        seen = key <= query if window is None else (key <= query) & (query - key <= window)
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return linear((weights @ v).swapaxes(1, 2).reshape(B, T, -1), f"{name}.c_proj")

    x = w["wte.weight"][ids] + w["wpe.weight"][: ids.shape[1]]
    for layer in range(raw["n_layer"]):
        h = f"h.{layer}"
        window = raw.get("window_size") if layer % 2 else None

        def mlp(x: np.ndarray, h: str = h) -> np.ndarray:
            return linear(GELU(linear(x, f"{h}.mlp.c_fc")), f"{h}.mlp.c_proj")

        if raw.get("use_pre_layernorm", True):
            x = x + attention(norm(x, f"{h}.ln_1"), f"{h}.attn", window)
            x = x + mlp(norm(x, f"{h}.ln_2"))
        else:
            x = norm(x + attention(x, f"{h}.attn", window), f"{h}.ln_1")
            x = norm(x + mlp(x), f"{h}.ln_2")
    return norm(x, "ln_f") @ w["lm_head.weight"].T

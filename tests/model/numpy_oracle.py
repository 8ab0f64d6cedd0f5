"""GPT-3's forward pass in plain numpy and float64, from the paper's and GPT-2's descriptions; it shares no code with the package.

Weights are a dictionary by GPT-2's parameter names (without `transformer.`), linear layers as (out, in).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray


def layer_norm(x: Array, gain: Array, bias: Array, epsilon: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gain + bias


def gelu_exact(x: Array) -> Array:
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def attend(q: Array, k: Array, v: Array, window: int | None) -> Array:
    """One head of one sequence, (T, D) each, one query after the other: query t sees keys max(0, t - window + 1) .. t."""
    rows = []
    for t in range(len(q)):
        first = 0 if window is None else max(0, t - window + 1)
        scores = k[first : t + 1] @ q[t] / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max())
        rows.append(weights @ v[first : t + 1] / weights.sum())
    return np.stack(rows)


def forward(
    weights: Mapping[str, Array],
    ids: Array,
    *,
    layers: int,
    heads: int,
    windows: list[int | None],
    pre_layernorm: bool = True,
    tanh_gelu: bool = False,
    epsilon: float = 1e-5,
) -> Array:
    """Logits (T, V) of one sequence of token ids (T,). `windows`: per layer the keys a query sees, None for all."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    gelu = gelu_tanh if tanh_gelu else gelu_exact

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

    def attention(x: Array, layer: int) -> Array:
        q, k, v = np.split(linear(x, f"h.{layer}.attn.c_attn"), 3, axis=-1)
        width = q.shape[-1] // heads
        parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
        mixed = np.concatenate([attend(q[:, part], k[:, part], v[:, part], windows[layer]) for part in parts], axis=-1)
        return linear(mixed, f"h.{layer}.attn.c_proj")

    def mlp(x: Array, layer: int) -> Array:
        return linear(gelu(linear(x, f"h.{layer}.mlp.c_fc")), f"h.{layer}.mlp.c_proj")

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for layer in range(layers):
        if pre_layernorm:
            x = x + attention(norm(x, f"h.{layer}.ln_1"), layer)
            x = x + mlp(norm(x, f"h.{layer}.ln_2"), layer)
        else:
            x = norm(x + attention(x, layer), f"h.{layer}.ln_1")
            x = norm(x + mlp(x, layer), f"h.{layer}.ln_2")
    return norm(x, "ln_f") @ w["wte.weight"].T

"""This package's two kernels: sliding-window attention compared with a mask, and the vocabulary loss with torch's own.

    python benchmarks/attention_and_loss.py [--what attention loss] [--dtype float32 bfloat16] [--repeats 7]
        [--loss-shapes 6144x256x50257 2048x768x50257]

Forward and backward together; the variants alternate; medians. docs/model.md has results. Attention is the operator alone,
without the projections around it: (1, 12, 2048, 64), window 256. With bfloat16 the tensors are bfloat16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3.bench.harness import alternate, spread
from gpt3.bench.train_worker import synchronize
from gpt3.model import linear_cross_entropy
from gpt3.model.banded_attention import banded_attention
from gpt3.tables import markdown

WINDOW = 256


def compare(title: str, variants: dict[str, Callable[[], Tensor]], leaves: list[Tensor], repeats: int) -> None:
    """Print the time of each variant, and its ratio to the first one."""

    def measure(_: str, name: str) -> list[float]:
        for leaf in leaves:
            leaf.grad = None
        start = time.perf_counter()
        variants[name]().backward()
        synchronize(leaves[0].device)
        return [1e3 * (time.perf_counter() - start)]

    found = alternate([title], list(variants), repeats + 1, measure)
    times = {name: spread(rounds[1:]) for (_, name), rounds in found.items()}  # the first round is a warm-up
    base = next(iter(times.values()))[0]
    rows = [[name, f"{t[0]:.1f} ({t[1]:.1f}-{t[2]:.1f})", f"{t[0] / base:.2f}"] for name, t in times.items()]
    print(f"\n{title}\n\n{markdown(['variant', 'ms (least-most)', f'/ {next(iter(times))}'], rows)}", flush=True)


def attention(dtype: torch.dtype, device: str, repeats: int) -> None:
    B, H, T, D = 1, 12, 2048, 64
    query, key, value = (torch.randn(B, H, T, D, device=device).to(dtype).requires_grad_() for _ in range(3))
    row, column = torch.arange(T, device=device)[:, None], torch.arange(T, device=device)
    band = (column <= row) & (column > row - WINDOW)  # (T, T)
    variants = {
        "causal": lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True).sum(),
        "window by a mask": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=band).sum(),
        "window in blocks": lambda: banded_attention(query, key, value, WINDOW).sum(),
    }
    compare(f"attention {(B, H, T, D)}, window {WINDOW}, {dtype}", variants, [query, key, value], repeats)


def loss(shape: str, dtype: torch.dtype, device: str, repeats: int) -> None:
    N, C, V = map(int, shape.split("x"))
    hidden = torch.randn(N, C, device=device).to(dtype).requires_grad_()
    weight = (0.02 * torch.randn(V, C, device=device)).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (N,), device=device)
    variants = {"whole logits": lambda: F.cross_entropy(F.linear(hidden, weight), targets)}
    if hasattr(F, "linear_cross_entropy"):  # torch 2.13
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=512, chunking_method=None)
        variants["F.linear_cross_entropy"] = lambda: F.linear_cross_entropy(hidden, weight, targets, options=options)
    variants["gpt3"] = lambda: linear_cross_entropy(hidden, weight, targets)
    compare(f"loss {N} x {C} x {V}, {dtype}", variants, [hidden, weight], repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", default=["attention", "loss"], choices=["attention", "loss"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    shapes = ["6144x256x50257", "2048x768x50257"]
    parser.add_argument("--loss-shapes", nargs="+", default=shapes, help="tokens x width x vocabulary")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.repeats} repeats")
    for dtype in (getattr(torch, name) for name in arguments.dtype):
        if "attention" in arguments.what:
            attention(dtype, arguments.device, arguments.repeats)
        for shape in arguments.loss_shapes if "loss" in arguments.what else []:
            loss(shape, dtype, arguments.device, arguments.repeats)


if __name__ == "__main__":
    main()

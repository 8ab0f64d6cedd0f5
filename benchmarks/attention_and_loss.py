"""The two kernels of our own on a CPU or GPU: banded attention against a mask, the vocabulary loss against torch's.

    python benchmarks/attention_and_loss.py [--what attention loss] [--dtype float32 bfloat16] [--repeats 7]
        [--loss-shapes 6144x256x50257 2048x768x50257]

Forward and backward together, the variants taking turns, medians. The numbers are in docs/model.md. Attention is the operator
alone, without the projections around it: (1, 12, 2048, 64), window 256. bfloat16 means that the tensors are bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3.model import linear_cross_entropy
from gpt3.model.banded_attention import banded_attention

WINDOW = 256
LOSS_SHAPES = ["6144x256x50257", "2048x768x50257"]


def timed(variants: dict[str, Callable[[], Tensor]], leaves: list[Tensor], repeats: int) -> dict[str, list[float]]:
    """Seconds of forward and backward of each variant, `repeats` times in turn after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, forward in variants.items():
            for leaf in leaves:
                leaf.grad = None
            start = time.perf_counter()
            forward().backward()
            if leaves[0].is_cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def attention(dtype: torch.dtype, device: str, repeats: int) -> None:
    """One line a variant: milliseconds and the ratio to causal attention."""
    B, H, T, D = 1, 12, 2048, 64
    query, key, value = (torch.randn(B, H, T, D, device=device).to(dtype).requires_grad_() for _ in range(3))
    row, column = torch.arange(T, device=device)[:, None], torch.arange(T, device=device)
    band = (column <= row) & (column > row - WINDOW)  # (T, T)
    variants = {
        "causal": lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True).sum(),
        "band by a mask": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=band).sum(),
        "band in blocks": lambda: banded_attention(query, key, value, WINDOW).sum(),
    }
    report(f"attention {(B, H, T, D)}, window {WINDOW}, {dtype}", timed(variants, [query, key, value], repeats))


def loss(shape: str, dtype: torch.dtype, device: str, repeats: int) -> None:
    """One line a variant: milliseconds and the ratio to plain logits."""
    N, C, V = map(int, shape.split("x"))
    hidden = torch.randn(N, C, device=device).to(dtype).requires_grad_()
    weight = (0.02 * torch.randn(V, C, device=device)).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (N,), device=device)
    variants = {"plain": lambda: F.cross_entropy(F.linear(hidden, weight), targets)}
    if hasattr(F, "linear_cross_entropy"):  # torch 2.13
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=512, chunking_method=None)
        variants["F.linear_cross_entropy"] = lambda: F.linear_cross_entropy(hidden, weight, targets, options=options)
    variants["ours"] = lambda: linear_cross_entropy(hidden, weight, targets)
    report(f"loss {N} x {C} x {V}, {dtype}", timed(variants, [hidden, weight], repeats))


def report(title: str, times: dict[str, list[float]]) -> None:
    print(title)
    base = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        middle = statistics.median(values)
        print(
            f"  {name:24}{1e3 * middle:9.1f} ms ({1e3 * min(values):.1f}-{1e3 * max(values):.1f})"
            f"{middle / base:7.2f} x {next(iter(times))}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", nargs="+", default=["attention", "loss"], choices=["attention", "loss"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--loss-shapes", nargs="+", default=LOSS_SHAPES, help="tokens x width x vocabulary")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.repeats} repeats")
    for name in arguments.dtype:
        dtype = getattr(torch, name)
        if "attention" in arguments.what:
            attention(dtype, arguments.device, arguments.repeats)
        if "loss" in arguments.what:
            for shape in arguments.loss_shapes:
                loss(shape, dtype, arguments.device, arguments.repeats)


if __name__ == "__main__":
    main()

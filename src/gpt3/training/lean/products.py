"""Matrix products of a training step on a CPU, each through the library that is faster here: MKL or oneDNN.

torch computes float32 products with MKL. On AMD's processors with AVX-512, oneDNN does the same in less than half the time. Which
one is faster, a short measurement of each shape says, once on a machine: it is kept in the user's cache folder. The libraries sum
in different orders, so a run records its choice, and a resume repeats it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gpt3.corpus.prepare import cache_folder
from gpt3.device import processor
from gpt3.durable import write_text

FORWARD, INPUT, WEIGHT = "forward", "input", "weight"
"""x W^T; the gradient of x, dy W; the gradient of W, dy^T x."""
WORTH = 1.1
"""oneDNN is chosen where it is this many times as fast: less may be chance."""
REPEATS, FLOPS, LEAST_ROWS = 5, 1e9, 64
"""Each product is measured this often, over rows that make about this number of operations, and no fewer rows."""
COPIED_ROWS = 128
CACHE = "products.json"


class Products:
    """The three products of a linear layer in float32, (N, I) x (O, I) -> (N, O).

    Args:
        onednn: the products that oneDNN computes, as `name_of` has them; MKL computes all others.
    """

    dtype = torch.float32
    """Of the matrices."""

    def __init__(self, onednn: Iterable[str] = ()) -> None:
        self.onednn = frozenset(onednn)

    def weight(self, weight: Tensor) -> Tensor:
        """A weight as the products take it."""
        return weight

    def by_onednn(self, product: str, shape: Sequence[int]) -> bool:
        """Whether oneDNN computes this of the three products with a weight of this shape (O, I)."""
        return bool(self.onednn) and name_of(product, shape) in self.onednn

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T, plus the bias."""
        if self.by_onednn(FORWARD, weight.shape):
            return onednn_linear(x, weight, bias)
        return torch.nn.functional.linear(x, weight, bias)

    def forward_into(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        """out = x W^T."""
        if not self.by_onednn(FORWARD, weight.shape):
            torch.mm(x, weight.t(), out=out)
            return
        for first in range(0, len(x), COPIED_ROWS):  # its result has memory of its own: few rows at a time stay at hand
            part = slice(first, first + COPIED_ROWS)
            out[part] = onednn_linear(x[part], weight)

    def add_forward(self, onto: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """`onto`, which becomes onto + x W^T."""
        if self.by_onednn(FORWARD, weight.shape):
            return onto.add_(onednn_linear(x, weight))
        return onto.addmm_(x, weight.t())

    def grad_input(self, dy: Tensor, weight: Tensor) -> Tensor:
        """dy W."""
        if self.by_onednn(INPUT, weight.shape):
            return onednn_linear(dy, weight.t())
        return torch.mm(dy, weight)

    def grad_weight(self, dy: Tensor, x: Tensor) -> Tensor:
        """dy^T x."""
        if self.by_onednn(WEIGHT, (dy.shape[1], x.shape[1])):
            return onednn_linear(dy.t(), x.t())
        return torch.mm(dy.t(), x)

    def add_grad_weight(self, total: Tensor, dy: Tensor, x: Tensor, first: bool) -> None:
        """total += dy^T x; the `first` time without what the memory held before."""
        if not self.by_onednn(WEIGHT, (dy.shape[1], x.shape[1])):
            total.addmm_(dy.t(), x, beta=0 if first else 1)
        elif first:
            total.copy_(onednn_linear(dy.t(), x.t()))
        else:
            total.add_(onednn_linear(dy.t(), x.t()))


def name_of(product: str, shape: Sequence[int]) -> str:
    """The name of one of the three products with a weight of this shape (O, I): ``forward I O``."""
    return f"{product} {shape[1]} {shape[0]}"


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T, plus the bias, by oneDNN: (N, I), (O, I), (O,) to (N, O), all float32 or all bfloat16. `has_onednn` says where."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def has_onednn() -> bool:
    """Whether this torch has MKL's products and oneDNN's."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def has_bf16() -> bool:
    """Whether the processor has instructions for products of bfloat16: AVX512-BF16 or AMX."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def fastest(model: nn.Module, rows: int) -> list[str]:
    """The products of a model's linear layers that oneDNN computes faster here, sorted.

    Each shape is measured once on a machine, for a few milliseconds; the result is kept in the user's cache folder by processor,
    version of torch and number of threads.

    Args:
        rows: tokens of a micro-batch.
    """
    if not has_onednn():
        return []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights = {(module.weight.shape[0], module.weight.shape[1]) for module in linear}
    file = cache_folder() / CACHE
    known = _read(file)
    here = known.setdefault(f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads", {})
    missing = [shape for shape in sorted(weights) if _key(shape, rows) not in here]
    for shape in missing:
        here[_key(shape, rows)] = measured(shape, rows)
    if missing:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(known, indent=1))
    return sorted({name for shape in weights for name in here[_key(shape, rows)]})


def measured(shape: tuple[int, int], rows: int) -> list[str]:
    """Which of the three products with a weight of this shape (O, I) oneDNN computes faster."""
    rows = max(LEAST_ROWS, min(rows, int(FLOPS / (2 * shape[0] * shape[1]))))
    x, weight, dy = torch.randn(rows, shape[1]), torch.randn(shape), torch.randn(rows, shape[0])
    calls: dict[str, Callable[[Products], object]] = {
        FORWARD: lambda products: products.forward_into(dy, x, weight),
        INPUT: lambda products: products.grad_input(dy, weight),
        WEIGHT: lambda products: products.grad_weight(dy, x),
    }
    found = []
    with torch.no_grad():
        for product, call in calls.items():
            name = name_of(product, shape)
            sides = Products(), Products([name])
            times: tuple[list[float], list[float]] = [], []
            for _ in range(REPEATS + 1):
                for side, taken in zip(sides, times, strict=True):
                    start = time.perf_counter()
                    call(side)
                    taken.append(time.perf_counter() - start)
            mkl, onednn = (min(taken[1:]) for taken in times)  # what else the machine does only makes it slower
            if mkl > WORTH * onednn:
                found.append(name)
    return found


def _key(shape: tuple[int, int], rows: int) -> str:
    return f"{rows} x {shape[1]} x {shape[0]}"


def _read(file: Path) -> dict[str, dict[str, list[str]]]:
    """What was measured before; nothing where the file is not what this version writes."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(known, dict) and all(isinstance(shapes, dict) for shapes in known.values()):
            return known
    return {}

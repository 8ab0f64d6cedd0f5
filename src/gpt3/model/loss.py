"""Cross-entropy over a large vocabulary that never holds the (tokens x vocabulary) logits.

Logits of 6,144 tokens over GPT-2's 50,257 entries are 1.2 GB in float32, and plain cross-entropy keeps three such
tensors. Here a chunk of rows is taken from logits to gradients while it is at hand, in one reused buffer:

    logits = hidden W^T  ->  softmax - one-hot  ->  grad_hidden = it W,  grad_W += it^T hidden

Both gradients are ready when the loss is, so that backward at most scales them. Peak memory beyond the inputs, for N tokens,
C wide, V entries: one chunk (512 x V in float32, 1,024 x V in 16 bit: 103 MB for GPT-2's V), grad_W (V x C, float32; in 16 bit
also the cast weight and one product), grad_hidden (N x C).

torch 2.13's `F.linear_cross_entropy` does the same in about 1.2 times the time (float32) and 2.2 to 2.4 times (bfloat16 on CPU);
docs/model.md has the figures. What makes the difference: rows of the buffer begin at 64-byte boundaries (V = 50,257 gives
a leading dimension of 50,304, its last columns -inf until the softmax makes them 0), and the softmax, torch's fused one, runs in
place over a few rows at a time, which stay in the CPU's cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

REDUCTIONS = ("mean", "sum", "none")
BYTES_AT_HAND = 2**21
"""Of logits in float32 that a CPU thread takes through the softmax at once. Time of the softmax over 512 rows, one thread,
bfloat16: of 4,096 entries 7.6 ms at 4 rows, 3.9 at 16, 2.7 at 64, 2.5 at 128, 10 at 512; of 50,257 entries 38 ms at 4,
31 at 16, 61 at 64."""


@torch.compiler.disable  # a compiled model breaks its graph here: the loop below is already the fused form
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    chunk: int | None = None,
    real_vocab_size: int | None = None,
    divisor: int | Tensor | None = None,
    compiled: bool = False,
    steps: LossSteps | None = None,
) -> Tensor:
    """`F.cross_entropy(F.linear(hidden, weight), targets)` without the logits; loss and gradients are equal.

    The products are computed in autocast's dtype where it is on, else in the inputs'; softmax, losses and the sum of the weight's
    gradient over chunks in float32.

    Args:
        hidden: (N, C), the last layer norm's output.
        weight: (V, C), the head; the token embedding where they are tied.
        targets: (N,), int64, ids below `real_vocab_size`, or `ignore_index`.
        ignore_index: targets of this value have loss 0 and do not count in the mean.
        reduction: `mean` over the tokens that count (nan if none does), `sum`, or `none` (N losses; backward computes
            the logits a second time).
        chunk: rows of logits held at a time. None: 512 in float32, 1,024 in 16 bit; eight times that off the CPU.
        real_vocab_size: rows of `weight` from here on are padding: they are left out of the softmax, and get gradient 0.
        divisor: with `sum`: divide the sum by it, as token-weighted accumulation does; cheaper here than outside.
        compiled: the model is: off the CPU, softmax and gradient of a chunk are compiled into one kernel or two, too.
        steps: what computes products and softmax on a CPU. None: torch's operators.

    Returns:
        float32, a scalar or (N,).

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown reduction.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or targets.shape != hidden.shape[:1] or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            "linear_cross_entropy takes hidden (N, C), weight (V, C) and targets (N,), got "
            f"{tuple(hidden.shape)}, {tuple(weight.shape)} and {tuple(targets.shape)}"
        )
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64 ids, got {targets.dtype}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    if chunk is None:
        chunk = (512 if dtype.itemsize >= 4 else 1024) * (1 if device == "cpu" else 8)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 row, got {chunk}")

    if not torch.is_grad_enabled():  # autograd would report gradients as needed all the same
        hidden, weight = hidden.detach(), weight.detach()
    counted = targets != ignore_index
    if reduction != "none" and device == "cpu" and not counted.all():
        # Rows that do not count are not computed. Elsewhere finding them would stall the device.
        hidden, targets, counted = hidden[counted], targets[counted], counted[counted]
    with torch.autocast(device, enabled=False):
        scale: Tensor = counted
        if reduction == "mean":
            divisor = counted.sum()
        if divisor is not None and len(targets) and _divides_exactly(divisor, dtype):
            # into the gradients as they are made: backward need not pass over them
            scale, divisor = counted.to(torch.promote_types(dtype, torch.float32)) / divisor, None
        losses = _LinearCrossEntropy.apply(
            hidden, weight, targets.where(counted, 0), scale, reduction == "none", dtype, chunk, real_vocab_size,
            compiled and device != "cpu", steps,
        )  # fmt: skip
        return losses if divisor is None else losses / divisor


def softmax_step(logits: Tensor, targets: Tensor, scale: Tensor, real: int, gradients: bool) -> Tensor:
    """The loop over rows below, written for torch.compile: of a chunk the losses, and in place of its logits their gradient.

    Args:
        logits: (n, columns), of which the first `real` are of real ids.
        targets: (n,).
        scale: (n, 1) float32, weight of each row's loss.
        gradients: whether they are wanted.

    Returns:
        (n,) losses times `scale`, in its dtype.
    """
    column = torch.arange(logits.shape[1], device=logits.device)
    s = logits.to(scale.dtype).where(column < real, -torch.inf)
    largest = s.amax(1, keepdim=True)
    exponential = (s - largest).exp()
    total = exponential.sum(1, keepdim=True)
    losses = (total.log() + largest - s.gather(1, targets[:, None])) * scale
    if gradients:
        logits.copy_((exponential / total - (column == targets[:, None]).to(s.dtype)) * scale)
    return losses[:, 0]


@functools.cache
def compiled_softmax_step() -> Callable[..., Tensor]:
    """`softmax_step` compiled, once in a process."""
    return torch.compile(softmax_step)


class LossSteps:
    """What the loss is computed with: torch's operators. A training loop may know faster ones for a CPU."""

    dtypes: tuple[torch.dtype, ...] = ()
    """Dtypes of products that a training loop's own steps are for."""

    def memory(self, purpose: str, rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """A matrix to write to, on `like`'s device; one of each purpose is in use at a time, and none after the loss."""
        return like.new_empty(rows, columns, dtype=dtype)

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """out (N, V) = hidden (N, C) weight^T."""
        torch.mm(hidden, weight.t(), out=out)

    def grad_hidden(self, grad_logits: Tensor, weight: Tensor, out: Tensor) -> None:
        """out (N, C) = grad_logits (N, V) weight."""
        torch.mm(grad_logits, weight, out=out)

    def add_grad_weight(self, total: Tensor, grad_logits: Tensor, hidden: Tensor, first: bool) -> None:
        """total (V, C) += grad_logits^T hidden; the `first` time without what the memory held before."""
        total.addmm_(grad_logits.t(), hidden, beta=0 if first else 1)

    def add(self, total: Tensor, part: Tensor, first: bool) -> None:
        """total (V, C) float32 += part; the `first` time without what the memory held before."""
        if first:
            total.copy_(part)
            return
        at_once = max(1, BYTES_AT_HAND // (2 * total.shape[1] * 4)) if total.device.type == "cpu" else len(total)
        for rows_of_sum, rows_of_part in zip(total.split(at_once), part.split(at_once), strict=True):
            rows_of_sum += rows_of_part  # in pieces, because torch casts the second one into new memory first

    def softmax(
        self,
        logits: Tensor,
        targets: Tensor,
        weights: Tensor,
        losses: Tensor,
        real: int,
        gradients: bool,
        scratch: Tensor | None,
    ) -> None:
        """Each row's cross-entropy times its weight into `losses`; with `gradients` its gradient in place of the logits.

        Args:
            logits: (N, stride); columns from `real` on are padding.
            targets: (N,), ids below `real`.
            weights, losses: (N,), float32 or float64.
            scratch: (rows, stride) in the losses' dtype where the logits are narrower.
        """
        rows_at_hand = rows_of_softmax(logits, logits.shape[1] * losses.dtype.itemsize)
        for first in range(0, len(logits), rows_at_hand):
            last = min(first + rows_at_hand, len(logits))
            x = logits[first:last]  # (rows at hand, stride)
            x[:, real:] = -torch.inf  # padding: no probability, no gradient
            target, weight_of_row = targets[first:last, None], weights[first:last, None]
            s = x if scratch is None else scratch[: last - first].copy_(x)
            at_target = s[:, :real].gather(1, target)
            largest = s.amax(1, keepdim=True)
            torch.softmax(s, 1, out=s)
            total = s.amax(1, keepdim=True).reciprocal_()  # of exp(logits - largest): the largest has 1 / total
            losses[first:last, None] = (total.log_() + largest - at_target) * weight_of_row
            if gradients:
                s.mul_(weight_of_row)  # the softmax, weighted
                if scratch is not None:
                    x.copy_(s)
                x[:, :real].scatter_add_(1, target, -weight_of_row.to(x.dtype))


def rows_of_softmax(tensor: Tensor, bytes_of_row: int) -> int:
    """Rows that torch's softmax takes at once on the tensor's device: on a CPU `BYTES_AT_HAND` for each thread."""
    if tensor.device.type != "cpu":
        return 512
    return max(1, BYTES_AT_HAND // bytes_of_row) * torch.get_num_threads()


def _divides_exactly(divisor: int | Tensor, dtype: torch.dtype) -> bool:
    """Whether softmax - one-hot may be divided in `dtype` and stay as exact: bfloat16 has 8 bits, so only powers of two;
    float16 a narrow range, so nothing."""
    if dtype.itemsize >= 4:
        return True
    return dtype == torch.bfloat16 and isinstance(divisor, int) and divisor > 0 and divisor & (divisor - 1) == 0


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum of the losses, its gradients computed on the way; or each token's loss, its gradients in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: Tensor,
        each: bool,
        dtype: torch.dtype,
        chunk: int,
        real_vocab_size: int | None,
        compiled: bool = False,
        steps: LossSteps | None = None,
    ) -> Tensor:
        ctx.each, ctx.options = each, (dtype, chunk, real_vocab_size, compiled, steps)
        needed = ctx.needs_input_grad[:2]
        if each:
            losses, _, _ = _losses_and_gradients(hidden, weight, targets, scale, (False, False), *ctx.options)
            if any(needed):
                ctx.save_for_backward(hidden, weight, targets, scale)
            return losses
        losses, grad_hidden, grad_weight = _losses_and_gradients(hidden, weight, targets, scale, needed, *ctx.options)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.each:
            hidden, weight, targets, scale = ctx.saved_tensors
            _, grad_hidden, grad_weight = _losses_and_gradients(
                hidden, weight, targets, grad_output * scale, ctx.needs_input_grad[:2], *ctx.options
            )
        elif grad_output.device.type == "cpu" and grad_output == 1:  # elsewhere looking would stall the device
            grad_hidden, grad_weight = ctx.saved_tensors
        else:  # not in place: backward may run again on a retained graph
            grad_hidden, grad_weight = (
                None if gradient is None else gradient * grad_output for gradient in ctx.saved_tensors
            )
        return grad_hidden, grad_weight, *[None] * 8


def _losses_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: Tensor,
    needed: tuple[bool, bool],
    dtype: torch.dtype,
    chunk: int,
    real_vocab_size: int | None,
    compiled: bool = False,
    steps: LossSteps | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Each row's loss, and where `needed` the gradients of the losses' weighted sum by hidden and by weight.

    Args:
        targets: (N,), ids in [0, V).
        scale: (N,), weight of each row's loss: bool or float32.

    Returns:
        (N,) float32 losses times `scale`; (N, C) in hidden's dtype; (V, C) in weight's dtype.
    """
    N, C = hidden.shape
    V = weight.shape[0]
    real = V if real_vocab_size is None else real_vocab_size
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    narrow = dtype.itemsize < 4
    # MPS before macOS 15 loses what a product writes into a view whose rows are apart
    into_views = hidden.device.type in ("cpu", "cuda")
    stride = (
        -(-V // 64) * 64 if into_views or narrow else V
    )  # numbers per row of the buffer: whole cache lines in any dtype
    hidden_cast = hidden.to(dtype)
    if steps is None or dtype not in steps.dtypes or hidden.device.type != "cpu":
        steps = LossSteps()
    if narrow:  # 16-bit products run faster on a rounder matrix, and the weight is copied anyway
        columns = stride
        weight_cast = steps.memory("weight", columns, C, weight, dtype)
        weight_cast[:V] = weight
        weight_cast[V:] = 0
    else:
        columns, weight_cast = V, weight.to(dtype)
    rows = min(chunk, N)
    buffer = steps.memory("logits", rows, stride, hidden, dtype)
    rows_at_hand = rows_of_softmax(hidden, stride * exact.itemsize)
    scratch = hidden.new_empty(min(rows_at_hand, rows), stride, dtype=exact) if narrow else None
    losses = hidden.new_empty(N, dtype=exact)
    grad_hidden = hidden.new_empty(N, C, dtype=dtype) if needed[0] else None
    new_sum = weight.new_empty if N else weight.new_zeros
    grad_weight = new_sum(columns, C, dtype=exact) if needed[1] else None
    product = steps.memory("product", columns, C, weight, dtype) if needed[1] and narrow else None
    scale = scale.to(exact)

    for start in range(0, N, chunk):
        stop = min(start + chunk, N)
        h = hidden_cast[start:stop]
        logits = buffer[: stop - start, :columns]
        steps.logits(h, weight_cast, logits)
        if compiled:
            losses[start:stop] = compiled_softmax_step()(
                buffer[: stop - start], targets[start:stop], scale[start:stop, None], real, any(needed)
            )
        else:
            part_of = slice(start, stop)
            steps.softmax(
                buffer[: stop - start], targets[part_of], scale[part_of], losses[part_of], real, any(needed), scratch
            )
        if grad_hidden is not None and into_views:
            steps.grad_hidden(logits, weight_cast, grad_hidden[start:stop])
        elif grad_hidden is not None:
            grad_hidden[start:stop] = torch.mm(logits, weight_cast)
        if grad_weight is not None:
            if product is None:
                steps.add_grad_weight(grad_weight, logits, h, first=start == 0)
                continue
            if hidden.device.type == "cuda":  # sums in float32: float16 could overflow
                part = torch.mm(logits.t(), h, out_dtype=torch.float32)
            else:
                part = torch.mm(logits.t(), h, out=product)
            steps.add(grad_weight, part, first=start == 0)
    return (
        losses,
        None if grad_hidden is None else grad_hidden.to(hidden.dtype),
        None if grad_weight is None else grad_weight[:V].to(weight.dtype),
    )

"""Documents packed into one sequence that do not see each other: their positions, and attention without a (T, T) mask.

On a GPU torch's flash attention reads where each document begins (gpt3.model.banded_attention). Where it cannot (float32, a torch
without its window), FlexAttention skips the blocks of keys that no query sees. Anywhere else there is a mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def document_positions(inputs: Tensor, end_of_text: int) -> Tensor:
    """Positions (B, T) that start again at 0 after every end-of-text; the model masks documents from one another by them."""
    index = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    starts = torch.zeros_like(inputs)
    starts[:, 1:] = torch.where(inputs[:, :-1] == end_of_text, index[:, 1:], 0)
    return index - starts.cummax(dim=1).values


def cumulative_lengths(positions: Tensor) -> Tensor:
    """Where each document begins in the rows put one after the other, and their end: what flash attention calls `cu_seqlens`.

    Args:
        positions: (B, T), 0 where a document begins. On the CPU, as its content decides the result's size.

    Returns:
        (N + 1,) int32, N the number of documents rounded up to a power of two; what that adds is empty. A compiled model thus
        meets few sizes.
    """
    starts = (positions.flatten() == 0).nonzero().flatten()
    count = 1 << (len(starts) - 1).bit_length()
    lengths = torch.full((count + 1,), positions.numel(), dtype=torch.int32)
    lengths[: len(starts)] = starts
    return lengths


def has_flex(device: torch.device) -> bool:
    """Whether FlexAttention is compiled for this device: NVIDIA's from Ampere on, and Triton is installed."""
    return device.type == "cuda" and _has_triton() and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def _has_triton() -> bool:
    from torch.utils._triton import has_triton_package

    return bool(has_triton_package())


def flex_mask(sees: Callable[..., Any], batch: int, length: int, device: torch.device) -> BlockMask:
    """The blocks of 128 keys that each block of 128 queries sees some or all of.

    Args:
        sees: of (sequence, head, query, key), whether the query sees the key.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(sees, batch, None, length, length, device=device)


def flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scale: float | None) -> Tensor:
    """FlexAttention, compiled where no compiled model calls it.

    Args:
        query, key, value: (B, H, T, D).
        mask: of `flex_mask`.

    Returns:
        (B, T, H, D).
    """
    from torch.nn.attention.flex_attention import flex_attention

    compute: Any = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
    output = compute(query, key, value, block_mask=mask, scale=scale)
    assert isinstance(output, Tensor)  # for the type checker
    return output.transpose(1, 2).contiguous()


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)

"""Locally banded attention in blocks: what a banded layer costs grows with context x window, not context squared.

With a band of W keys, the queries of block n (W of them) see keys of blocks n - 1 and n only. So the sequence is cut into
blocks of W; each attends to 2 W keys through torch's fused attention, the first to its own W:

            keys   block 0  block 1  block 2
    queries  0      ◣                            causal
             1      ◥        ◣                   one (W, 2 W) mask, the same for all further blocks
             2               ◥        ◣

On a GPU with flash attention that takes a window (torch 2.11 or later) it is that: blocks have a mask, which excludes flash.
There packed documents need no mask either; FlexAttention computes them where flash cannot (packed_documents.py).

Registered with transformers as the attention implementation `banded`, with its mask function. It is the models' default;
`sdpa` and `eager` compute the same with a (T, T) mask. Where blocks do not apply or do not pay (decoding with a cache, padding,
packed documents on a CPU, short contexts) it is `sdpa`.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .packed_documents import flex, flex_mask, has_flex

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BANDED = "banded"
BLOCKS_FROM_WINDOWS = 2
"""Blocks are used from this many windows of context on. Time of forward and backward relative to the (T, T) mask (float32 on CPU,
W 256): 3 at 1 window and one token, 0.82 at 2 windows, 0.62 at 3, 0.47 at 4, 0.25 at 8."""
EXACT_BELOW_KEYS = 256
"""On a CPU, 16-bit attention over fewer keys is computed in float32: torch's kernel packs every small product anew. Time of
forward and backward, casts included, relative to bfloat16's (AVX512-BF16, D 64): 0.32 at 32 keys, 0.57 at 128, 0.98 at 256,
1.10 at 512."""


def banded_attention(
    query: Tensor, key: Tensor, value: Tensor, window: int, *, scale: float | None = None, dropout: float = 0.0
) -> Tensor:
    """Causal attention of each query to the last `window` keys, itself included.

    Args:
        query, key, value: (B, H, T, D), of the same T; any T.
        window: W, keys a query sees.
        scale: of the scores; None: 1 / sqrt(D).
        dropout: of the attention probabilities.

    Returns:
        (B, H, T, D).
    """
    B, H, T, D = query.shape
    W = window
    if T <= W:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scale)
    blocks = -(-T // W)
    if padding := blocks * W - T:  # the added keys lie in the future of every real query
        query, key, value = (F.pad(x, (0, 0, 0, padding)) for x in (query, key, value))
    first = F.scaled_dot_product_attention(
        query[:, :, :W], key[:, :, :W], value[:, :, :W], dropout_p=dropout, is_causal=True, scale=scale
    )  # (B, H, W, D)

    row = torch.arange(W, device=query.device)[:, None]
    column = torch.arange(2 * W, device=query.device)[None, :]  # keys of the previous block, then of the own
    mask = (column > row) & (column <= row + W)  # (W, 2 W)
    rest = F.scaled_dot_product_attention(
        query.unflatten(2, (blocks, W))[:, :, 1:].flatten(0, 1),  # (B H, blocks - 1, W, D)
        _with_previous_block(key, blocks),  # (B H, blocks - 1, 2 W, D)
        _with_previous_block(value, blocks),
        attn_mask=mask,
        dropout_p=dropout,
        scale=scale,
    ).view(B, H, (blocks - 1) * W, D)
    return torch.cat([first, rest], dim=2)[:, :, :T]


def _with_previous_block(x: Tensor, blocks: int) -> Tensor:
    """(B, H, blocks W, D) -> (B H, blocks - 1, 2 W, D): each block from the second on, behind the one before it."""
    x = x.unflatten(2, (blocks, -1))
    return torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3).flatten(0, 1)


def has_windowed_flash(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether torch's flash attention takes such queries with a window: 16 bit, heads of up to 256, Ampere or later."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= 256
        and _varlen_takes_windows()
        and _capability(device) >= (8, 0)
    )


@functools.cache
def _varlen_takes_windows() -> bool:
    """Whether this torch has `varlen_attn` with a window; 2.10 and before have none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "window_size" in inspect.signature(varlen_attn).parameters


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def windowed_flash(
    query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float | None, starts: Tensor | None = None
) -> Tensor:
    """Causal attention by torch's flash attention for sequences of any lengths, which skips what a query does not see.

    Args:
        query, key, value: (B, H, T, D).
        window: keys a query sees, itself included; None: all of its document.
        starts: of packed documents (`cumulative_lengths`); None: each row is one.

    Returns:
        (B, T, H, D).
    """
    from torch.nn.attention.varlen import varlen_attn

    B, _, T, _ = query.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))  # (B T, H, D)
    if starts is None:
        starts = torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=query.device)
    left = -1 if window is None else window - 1
    output = varlen_attn(q, k, v, starts, starts, T, T, scale=scale, window_size=(left, 0))  # T at most
    assert isinstance(output, Tensor)  # for the type checker
    return output.unflatten(0, (B, T))


def banded_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (B, H, T, D) in, (B, T, H, D) out. No mask and T > window: in blocks.

    Args:
        cu_seq_lens_q: of packed documents (`cumulative_lengths`), where `has_windowed_flash`; the mask is None then.
    """
    if cu_seq_lens_q is not None:
        return windowed_flash(query, key, value, sliding_window, scaling, cu_seq_lens_q), None
    if attention_mask is not None and not isinstance(attention_mask, Tensor):
        return flex(query, key, value, attention_mask, scaling), None
    in_blocks = (
        sliding_window is not None
        and attention_mask is None
        and query.shape[2] == key.shape[2] > sliding_window
        and kwargs.get("is_causal") is not False
    )
    keys = min(key.shape[2], 2 * sliding_window) if in_blocks and sliding_window is not None else key.shape[2]
    if (
        query.device.type == "cpu"
        and query.dtype.itemsize < 4
        and query.shape[2] > 1  # decoding reads each key once, and a cast would read it once more
        and keys < EXACT_BELOW_KEYS
        and (attention_mask is None or attention_mask.dtype == torch.bool)
    ):
        with torch.autocast("cpu", enabled=False):
            output, _ = banded_attention_forward(
                module,
                query.float(),
                key.float(),
                value.float(),
                attention_mask,
                dropout,
                scaling,
                sliding_window,
                **kwargs,
            )
            return output.to(query.dtype), None
    if not in_blocks:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert sliding_window is not None  # for the type checker
    if dropout == 0 and has_windowed_flash(query.device, query.dtype, query.shape[-1]):
        return windowed_flash(query, key, value, sliding_window, scaling), None
    output = banded_attention(query, key, value, sliding_window, scale=scaling, dropout=dropout)
    return output.transpose(1, 2).contiguous(), None


def banded_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | BlockMask | None:
    """transformers' mask interface: no mask where the attention above knows it from the shapes, else `sdpa`'s, or FlexAttention's
    for packed documents on a GPU.

    Args:
        attention_mask: (B, S) of the real tokens, or None.
        local_size: the window of a banded layer; None in a dense one.
        allow_is_causal_skip: False for packed documents and other patterns that a mask must carry.

    Returns:
        None (causal, banded to `local_size` if given), a bool mask (B, 1, T, S), or blocks of keys (FlexAttention).
    """
    square = isinstance(q_offset, int) and q_offset == 0 and q_length == kv_length
    whole = allow_is_causal_skip and square
    if (
        whole
        and (local_size is None or q_length <= local_size or q_length >= BLOCKS_FROM_WINDOWS * local_size)
        and (attention_mask is None or (not torch.compiler.is_compiling() and bool(attention_mask.all())))
    ):
        return None
    config, device = kwargs.get("config"), torch.device(kwargs.get("device", "cpu"))
    packed = not allow_is_causal_skip and square and attention_mask is None
    if packed and has_flex(device) and not (config and config.attn_pdrop):  # it has no dropout
        return flex_mask(kwargs["mask_function"], batch_size, q_length, device)
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,  # type: ignore[arg-type]  # a tensor with static caches
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        **kwargs,
    )


AttentionInterface.register(BANDED, banded_attention_forward)
AttentionMaskInterface.register(BANDED, banded_mask)

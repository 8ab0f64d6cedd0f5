"""Attention of new tokens to a slot's keys and values, in torch: a prompt at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt3.model.banded_attention import banded_attention


def attend_and_store(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, start: int, window: int | None
) -> Tensor:
    """Attention of n tokens at positions from `start` on; their keys and values are put into the slot.

    Args:
        query, key, value: (H, n, D), of the new tokens.
        keys, values: (H, places, D), the slot's. Position p is at p modulo places; a dense layer has a place for each.
        window: keys a query sees, itself included; None: all.

    Returns:
        (H, n, D).
    """
    n, places = query.shape[1], keys.shape[1]
    if window is None:
        before = start  # keys of what is held that the first query sees
        keys[:, start : start + n], values[:, start : start + n] = key, value
        key, value = keys[:, : start + n], values[:, : start + n]
    else:
        before = min(start, window - 1)
        held = torch.arange(start - before, start, device=query.device) % places
        seen = torch.cat([keys[:, held], key], 1), torch.cat([values[:, held], value], 1)
        kept = min(n, places)
        new = torch.arange(start + n - kept, start + n, device=query.device) % places
        keys[:, new], values[:, new] = key[:, n - kept :], value[:, n - kept :]
        key, value = seen
    if before == 0 and (window is None or n <= window):
        return F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True)[0]
    if before == 0 and window is not None:
        return banded_attention(query[None], key[None], value[None], window)[0]
    columns = torch.arange(before + n, device=query.device)
    distance = columns[before:, None] - columns[None]  # from key to query
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return F.scaled_dot_product_attention(query[None], key[None], value[None], attn_mask=mask)[0]

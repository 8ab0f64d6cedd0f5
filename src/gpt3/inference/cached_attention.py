"""Attention of several new tokens of one text to themselves and to what its slot of a cache holds, on any device."""

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
        keys[:, start : start + n], values[:, start : start + n] = key, value
        return attention(query, keys[:, : start + n], values[:, : start + n], start, None)
    before = min(start, window - 1)  # keys of what is held that the first query sees
    held = torch.arange(start - before, start, device=query.device) % places
    seen_keys, seen_values = torch.cat([keys[:, held], key], 1), torch.cat([values[:, held], value], 1)
    kept = min(n, places)
    new = torch.arange(start + n - kept, start + n, device=query.device) % places
    keys[:, new], values[:, new] = key[:, n - kept :], value[:, n - kept :]
    return attention(query, seen_keys, seen_values, before, window)


def attention(query: Tensor, key: Tensor, value: Tensor, before: int, window: int | None) -> Tensor:
    """Causal attention of n queries to `before` keys of earlier tokens and their own n; of a band if `window` is given.

    Args:
        query: (H, n, D).
        key, value: (H, before + n, D).

    Returns:
        (H, n, D).
    """
    n = query.shape[1]
    if before == 0 and (window is None or n <= window):
        return F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=True)[0]
    if before == 0 and window is not None:
        return banded_attention(query[None], key[None], value[None], window)[0]
    places = torch.arange(before + n, device=query.device)
    distance = places[before:, None] - places[None]  # from key to query
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    return F.scaled_dot_product_attention(query[None], key[None], value[None], attn_mask=mask)[0]

"""Places of the largest values, and of those that come first up to a total weight, without sorting a vocabulary on a CPU.

A NumPy array is one row, (V,). A torch tensor holds rows, (B, V), and its device is never waited for. On a CPU a row of 50,257
values takes about a tenth of a millisecond: most values are excluded by the maximum of their group or by their leading bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP = 64  # values of which only the largest is compared when large ones are searched for
CLASS_BITS = np.uint32(19)  # the low bits of a float32 that are ignored: 16 classes for each factor of 2 remain
CHUNK = 8192  # values put into classes at once, which fit a core's cache

Floats = NDArray[np.float32]


def largest(values: Any, k: int) -> Any:
    """Where the k largest values are, and those equal to the k-th.

    The k-th largest maximum of groups is at most the k-th largest value: what is below it need not be sorted.

    Returns:
        For NumPy their places, ascending; for torch a mask (B, V).
    """
    if not isinstance(values, np.ndarray):
        return values >= values.topk(k).values[..., -1:]
    group = GROUP
    while group > 1 and len(values) // group < 2 * k:
        group //= 2
    if group < 4:
        return np.flatnonzero(values >= np.partition(values, -k)[-k])
    places = np.flatnonzero(values >= np.partition(_maxima(values, group), -k)[-k])
    found = values[places]
    return places[found >= np.partition(found, -k)[-k]]


def first(keys: Any, weights: Any, target: Any, ascending: bool = False) -> Any:
    """The fewest places, by key, whose weights sum to `target` or more; of equal keys the lowest places. At least one.

    Args:
        keys: not negative; the largest come first, or with `ascending` the smallest.
        weights: of the same shape, not negative.
        target: a number; for torch also (B, 1).

    Returns:
        A mask like `keys`; for NumPy it may be the places themselves, ascending.
    """
    if not isinstance(keys, np.ndarray):
        order = keys.sort(descending=not ascending, stable=True).indices
        shares = weights.gather(-1, order)
        return keys.new_zeros(keys.shape, dtype=bool).scatter(-1, order, shares.cumsum(-1) - shares < target)
    if len(keys) < 16 * GROUP:
        return _sorted_first(np.zeros(len(keys), dtype=bool), np.arange(len(keys)), keys, weights, target, ascending)
    if not ascending:  # in most texts one or two in a hundred tokens have nearly all of the probability
        maxima = _maxima(keys, GROUP)
        likely = np.flatnonzero(keys >= np.partition(maxima, len(maxima) // 2)[len(maxima) // 2])
        found = weights[likely]
        if float(found.sum(dtype=np.float64)) >= target:
            none = np.zeros(len(likely), dtype=bool)
            return likely[_sorted_first(none, np.arange(len(likely)), keys[likely], found, target, ascending)]
    totals = _by_class(keys, weights)
    ordered = totals if ascending else totals[::-1]
    before = ordered.cumsum() - ordered  # the weight of all classes that come before
    edge = int(np.flatnonzero(before < target)[-1])
    bits = edge if ascending else len(totals) - 1 - edge
    lower, upper = (np.arange(bits, bits + 2, dtype=np.uint32) << CLASS_BITS).view(np.float32)  # NaN above infinity
    above = keys >= upper
    members = np.flatnonzero((keys >= lower) ^ above)
    kept = keys < lower if ascending else above
    return _sorted_first(kept, members, keys[members], weights[members], target - before[edge], ascending)


def draw(weights: Any, uniforms: Any) -> Any:
    """Where the running sum of the weights passes `uniforms`, numbers in [0, 1), of the whole. A weight of 0 is never drawn.

    Args:
        weights: (V,) float32 in NumPy, or (B, V) float64 in torch.
        uniforms: (1,), or (B,).

    Returns:
        A place, or (B,) places.
    """
    if not isinstance(weights, np.ndarray):
        import torch

        sums = weights.cumsum(-1)
        # the first place whose sum is above the point has added to it, so its weight is not 0
        return torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]
    block = 256
    if len(weights) <= 4 * block:
        return _locate(weights, uniforms[0])[0]
    whole = len(weights) // block * block  # sum blocks, then search one: ten times as fast as summing all in order
    blocks = np.append(weights[:whole].reshape(-1, block).sum(1), weights[whole:].sum(dtype=np.float32))
    number, share = _locate(blocks, uniforms[0])
    return number * block + _locate(weights[number * block : (number + 1) * block], share)[0]


def _sorted_first(kept: Any, members: Any, keys: Floats, weights: Floats, target: float, ascending: bool) -> Any:
    """The mask `kept`, and those of `members`, of which keys and weights are given, that it takes to reach the target."""
    order = np.argsort(keys if ascending else -keys, kind="stable")
    count = int(weights[order].cumsum(dtype=np.float64).searchsorted(target)) + 1
    kept[members[order[:count]]] = True
    return kept


def _locate(weights: Floats, uniform: float) -> tuple[int, float]:
    """The place where the running sum passes `uniform` of the whole, and how far into that place's own weight, in [0, 1)."""
    sums = weights.cumsum(dtype=np.float64)
    point = uniform * sums[-1]
    # rounding may put the point at the very end: then the last place that added to the sum is meant
    place = int(min(sums.searchsorted(point, side="right"), sums.searchsorted(sums[-1])))
    before = sums[place - 1] if place else 0.0
    return place, min(max((point - before) / (sums[place] - before), 0.0), 1 - 2.0**-53)


def _maxima(values: Floats, group: int) -> Floats:
    """The largest of each group of values: every n-th, so that neighbors, often alike, fall into different groups."""
    columns = len(values) // group
    return values[: columns * group].reshape(group, columns).max(0)


def _by_class(keys: Floats, weights: Floats) -> NDArray[np.float64]:
    """Sums of the weights by the class of their key, up to the highest there is."""
    count = int(keys.max().view(np.uint32) >> CLASS_BITS) + 1
    sums = np.zeros(count)
    for start in range(0, len(keys), CHUNK):
        classes = keys[start : start + CHUNK].view(np.uint32) >> CLASS_BITS
        sums += np.bincount(classes, weights[start : start + CHUNK], count)
    return sums

"""One row's draw on the CPU: the chain after the penalties, in numpy, without sorting the vocabulary.

`gpt3.inference.sampling` defines each step; here a row of 50,257 logits takes about a tenth of a millisecond. What is left after
a cut is a pair (ids, weights): token ids in ascending order (None: the whole vocabulary) and weights in proportion to their
probabilities, the largest 1. Rows are handled one at a time: each fits the cache, and none can depend on its batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt3.inference.options import SamplingOptions

Row = NDArray[np.float32]
Ids = NDArray[np.int64]

GROUP = 64  # values of which only the largest is looked at when large ones are searched for
BLOCK = 256  # weights that are summed together before the point of a draw is searched for

CLASS_BITS = np.uint32(
    19
)  # of a float32's 32 bits, those that do not tell its class: sign, exponent and 4 bits are left
PIECE = 8192  # numbers that are put into classes at once


def distribution(logits: Row, options: SamplingOptions) -> tuple[Ids | None, Row]:
    """What may be drawn after temperature (above 0), top-k, top-p, min-p and typical-p.

    Args:
        logits: (V,) float32, at least one of them finite, none NaN or +inf.

    Returns:
        ids (None: all of the vocabulary, in order) and their weights; a weight of 0 is ruled out.
    """
    if options.temperature != 1:
        logits = logits / np.float32(options.temperature)
    ids = None
    if 0 < options.top_k < len(logits):
        ids = likeliest(logits, options.top_k)
        logits = logits[ids]
    weights: Row = np.exp(logits - logits.max())
    if options.top_p < 1:
        ids, weights = _nucleus(ids, weights, options.top_p)
    if options.min_p > 0:
        ids, weights = _select(ids, weights, weights >= np.float32(options.min_p))
    if options.typical_p < 1:
        ids, weights = _select(ids, weights, _typical(weights, options.typical_p))
    return ids, weights


def draw(weights: Row, uniform: float) -> int:
    """The place at which the running sum of `weights` passes `uniform`, in [0, 1), of the whole. A weight of 0 is never drawn."""
    if len(weights) > 4 * BLOCK:  # sum blocks, then search one: summing up all of them in order takes ten times as long
        whole = len(weights) // BLOCK * BLOCK
        sums = weights[:whole].reshape(-1, BLOCK).sum(1)
        block, share = _locate(np.append(sums, weights[whole:].sum(dtype=np.float32)), uniform)
        place, _ = _locate(weights[block * BLOCK : (block + 1) * BLOCK], share)
        return block * BLOCK + place
    return _locate(weights, uniform)[0]


def likeliest(values: Row, k: int) -> Ids:
    """Places of the k largest values and of those equal to the k-th, ascending.

    The k-th largest of the maxima of groups is no larger than the k-th largest of all: what is below it need not be sorted.
    """
    group = GROUP
    while group > 1 and len(values) // group < 2 * k:
        group //= 2
    if group < 4:
        return np.flatnonzero(values >= np.partition(values, -k)[-k])
    candidates = np.flatnonzero(values >= np.partition(_maxima(values, group), -k)[-k])
    found = values[candidates]
    return candidates[found >= np.partition(found, -k)[-k]]


def _locate(weights: Row, uniform: float) -> tuple[int, float]:
    """The place where the running sum passes `uniform` of the whole, and how far into that place's own weight, in [0, 1)."""
    sums = weights.cumsum(dtype=np.float64)
    point = uniform * sums[-1]
    # the first place whose sum is above the point has added to the sum, so its weight is not 0; rounding may put the point
    # at the very end, and the last place that added to the sum is meant
    place = int(min(sums.searchsorted(point, side="right"), sums.searchsorted(sums[-1])))
    before = sums[place - 1] if place else 0.0
    return place, min(max((point - before) / (sums[place] - before), 0.0), 1 - 2.0**-53)


def _nucleus(ids: Ids | None, weights: Row, p: float) -> tuple[Ids | None, Row]:
    """The fewest weights, largest first, with a share of p or more. Of equal weights at the edge the lowest ids are taken."""
    target = p * float(weights.sum())
    if ids is not None or len(weights) < 16 * GROUP:
        return _select(ids, weights, _largest(weights, target))
    maxima = _maxima(weights, GROUP)
    candidates = np.flatnonzero(weights >= np.partition(maxima, len(maxima) // 2)[len(maxima) // 2])  # 1 or 2% of all
    found = weights[candidates]
    if float(found.sum(dtype=np.float64)) >= target:
        kept = _largest(found, target)
        return candidates[kept], found[kept]
    # a wide one: count by the leading bits of the numbers (16 classes to a factor of 2), then sort only the class at the edge
    masses = _by_class(weights, weights)
    above = masses[::-1].cumsum()[::-1] - masses  # (classes,), mass of all higher classes
    edge = int(np.flatnonzero(above < target)[0])
    kept, members = _split(weights, edge)
    if len(members):  # none, where p is so near 1 that rounding puts the target beyond the sum of all
        kept[members[_largest(weights[members], target - above[edge])]] = True
    return _select(None, weights, kept)


def _maxima(values: Row, group: int) -> Row:
    """The largest of each group of values: every n-th, so that neighbours, often alike, fall into different groups."""
    columns = len(values) // group
    return values[: columns * group].reshape(group, columns).max(0)


def _by_class(keys: Row, weights: Row) -> NDArray[np.float64]:
    """Sums of the weights by the class of their key (not negative), up to the highest there is. In pieces that fit the cache."""
    count = int(keys.max().view(np.uint32) >> CLASS_BITS) + 1
    sums = np.zeros(count)
    for start in range(0, len(keys), PIECE):
        classes = keys[start : start + PIECE].view(np.uint32) >> CLASS_BITS
        sums += np.bincount(classes, weights[start : start + PIECE], count)
    return sums


def _split(keys: Row, number: int) -> tuple[NDArray[np.bool_], Ids]:
    """Which keys are of a higher class than this one, and the places of those in it."""
    bits = np.arange(number, number + 2, dtype=np.uint32) << CLASS_BITS
    lower, upper = bits.view(np.float32)  # NaN above infinity, which nothing reaches
    above: NDArray[np.bool_] = keys >= upper
    return above, np.flatnonzero((keys >= lower) ^ above)


def _largest(weights: Row, target: float) -> NDArray[np.bool_]:
    """Which weights, largest first, it takes to sum up to the target; at least one, at most all."""
    descending = np.sort(weights)[::-1]
    count = min(int(descending.cumsum(dtype=np.float64).searchsorted(target)) + 1, len(weights))
    smallest = descending[count - 1]
    kept: NDArray[np.bool_] = weights > smallest
    equal = np.flatnonzero(weights == smallest)
    kept[equal[: count - int(np.count_nonzero(kept))]] = True
    return kept


def _typical(weights: Row, p: float) -> NDArray[np.bool_]:
    """The places `sampling.keep_typical` keeps."""
    probabilities = weights / weights.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probabilities)
        distance: Row = np.abs(surprise - np.nansum(surprise * probabilities))
    # as in a wide nucleus: count by classes of the distance, then sort only the class in which the sum reaches p
    sums = _by_class(distance, probabilities).cumsum()
    edge = min(int(sums.searchsorted(p)), len(sums) - 1)
    _, members = _split(distance, edge)
    members = members[np.argsort(distance[members], kind="stable")]
    inside = (sums[edge - 1] if edge else 0.0) + probabilities[members].cumsum(dtype=np.float64)
    farthest = distance[members[min(int(inside.searchsorted(p)), len(members) - 1)]]
    kept: NDArray[np.bool_] = distance <= farthest
    return kept


def _select(ids: Ids | None, weights: Row, kept: NDArray[Any]) -> tuple[Ids | None, Row]:
    """Only the places that are kept; of a whole vocabulary the others become 0, which is faster than gathering."""
    if ids is None:
        return None, weights * kept
    return ids[kept], weights[kept]

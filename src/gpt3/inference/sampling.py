"""From logits to the next token: small pure functions on (B, V) logits, chained in a fixed order.

The order is transformers' own: padding vocabulary, repetition penalty, no-repeat n-gram, temperature, top-k, top-p,
min-p, draw. Each function returns new logits in which what is ruled out is -inf, checks the bounds of its argument
(ValueError), and is the identity at its neutral value. At temperature 0 the chain ends after the n-grams: argmax.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpt3.inference.options import SamplingOptions

NOTHING_LEFT = -1  # `choose` answers it for a row in which every token is ruled out
NUCLEUS_GUESS = 1024  # the nucleus is looked for among so many tokens before the whole vocabulary is sorted


def limit_vocabulary(logits: Tensor, size: int) -> Tensor:
    """Rule out ids from `size` on: rows of the embedding that only pad it, or that the tokenizer does not know.

    Args:
        logits: (B, V) float.
        size: 1 ≤ size; sizes from V on change nothing.
    """
    _require(size >= 1, "vocabulary size", size, "at least 1")
    if size >= logits.shape[-1]:
        return logits
    limited = logits.clone()
    limited[:, size:] = -torch.inf
    return limited


def penalise_repetition(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Make tokens that came before less likely (CTRL, Keskar et al. 2019, section 4.1; sign-aware as in transformers).

    Args:
        logits: (B, V) float.
        history: (B, T) int64, prompt and text so far.
        penalty: above 0; divides positive logits of the tokens in history, multiplies negative ones. 1 is none.
    """
    _require(penalty > 0, "repetition penalty", penalty, "above 0")
    if penalty == 1 or history.shape[-1] == 0:
        return logits
    seen = logits.gather(-1, history)  # (B, T)
    return logits.scatter(-1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def forbid_repeated_ngrams(logits: Tensor, history: Tensor, size: int) -> Tensor:
    """Rule out every token that would complete an n-gram found in the row's history.

    Args:
        logits: (B, V) float.
        history: (B, T) int64, prompt and text so far.
        size: tokens in an n-gram, at least 0; 0 is no limit; 1 lets every token come once.
    """
    _require(size >= 0, "n-gram size", size, "at least 0")
    length = history.shape[-1]
    if size == 0 or length < size:
        return logits
    ngrams = history.unfold(-1, size, 1)  # (B, T - size + 1, size)
    tail = history[:, None, length - size + 1 :]  # (B, 1, size - 1), what the next token would complete
    row, place = (ngrams[..., :-1] == tail).all(-1).nonzero(as_tuple=True)
    allowed = logits.clone()
    allowed[row, ngrams[row, place, -1]] = -torch.inf
    return allowed


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature, which is above 0 (greedy decoding does not come here)."""
    _require(temperature > 0, "temperature", temperature, "above 0")
    return logits if temperature == 1 else logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row, and those equal to the k-th. k is at least 0; 0 keeps all."""
    _require(k >= 0, "top-k", k, "at least 0")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(k).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the nucleus: the fewest tokens, likeliest first, whose probabilities sum to p or more; at least one.

    Args:
        logits: (B, V) float.
        p: above 0, up to 1; 1 keeps all (Holtzman et al. 2019).
    """
    _require(0 < p <= 1, "top-p", p, "above 0 and at most 1")
    if p == 1:
        return logits
    probabilities = logits.softmax(-1)
    vocabulary = logits.shape[-1]
    for width in sorted({min(NUCLEUS_GUESS, vocabulary), vocabulary}):  # a full sort only where the nucleus is wide
        likeliest, ids = probabilities.topk(width)  # (B, width), descending
        mass_before = likeliest.cumsum(-1) - likeliest  # of all likelier tokens; 0 for the first
        if bool((mass_before[:, -1] >= p).all()):
            break
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, ids, mass_before < p)
    return logits.masked_fill(~kept, -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the row's likeliest. p in [0, 1]; 0 keeps all (Nguyen et al. 2024)."""
    _require(0 <= p <= 1, "min-p", p, "from 0 to 1")
    if p == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -torch.inf)


def process(logits: Tensor, history: Tensor, options: SamplingOptions, vocabulary: int) -> Tensor:
    """The whole chain, in its order.

    Args:
        logits: (B, V) of any float type; what comes back is float32.
        history: (B, T) int64, prompt and text so far.
        vocabulary: ids from here on are never chosen.
    """
    logits = limit_vocabulary(logits.float(), vocabulary)
    logits = penalise_repetition(logits, history, options.repetition_penalty)
    logits = forbid_repeated_ngrams(logits, history, options.no_repeat_ngram)
    if options.temperature == 0:
        return logits
    logits = apply_temperature(logits, options.temperature)
    logits = keep_top_k(logits, options.top_k)
    logits = keep_top_p(logits, options.top_p)
    return keep_min_p(logits, options.min_p)


def uniform(seed: int, row: int, step: int) -> float:
    """A number in [0, 1), 53 bits, that is a function of (seed, row, step) and of nothing else.

    Having no generator state, a row's draws stay the same whatever batch the row is in and whenever others end.
    """
    digest = hashlib.blake2b(f"{seed}:{row}:{step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def draw(logits: Tensor, uniforms: Sequence[float]) -> Tensor:
    """One token a row from softmax(logits), by inverting the cumulative distribution at `uniforms`.

    Args:
        logits: (B, V) float; at least one finite logit in each row. A token at -inf is never drawn.
        uniforms: B numbers in [0, 1).

    Returns:
        (B,) int64 on the device of logits.
    """
    device = logits.device
    if device.type == "mps":  # which has no float64
        logits = logits.cpu()
    cumulative = logits.double().softmax(-1).cumsum(-1)  # (B, V)
    point = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
    # the first token whose sum is above the point: such a token has added to the sum, so its probability is not 0
    return torch.searchsorted(cumulative, point, right=True)[:, 0].to(device)


def choose(logits: Tensor, greedy: bool, uniforms: Sequence[float]) -> list[int]:
    """The next token of each row: argmax or a draw; NOTHING_LEFT where every token is ruled out.

    Args:
        logits: (B, V) as `process` leaves them.
        uniforms: B numbers in [0, 1); not looked at when greedy.
    """
    left = (logits.amax(-1) > -torch.inf).tolist()
    tokens = (logits.argmax(-1) if greedy else draw(logits, uniforms)).tolist()
    return [token if some else NOTHING_LEFT for token, some in zip(tokens, left, strict=True)]


def _require(fine: bool, name: str, value: float, bounds: str) -> None:
    if not fine:
        raise ValueError(f"{name} is {value}, but must be {bounds}")

"""From logits to the next token: small pure functions on (B, V) logits, chained in a fixed order.

The order, transformers' own: padding vocabulary, logit bias, repetition penalty, presence and frequency penalty, no-repeat
n-gram, bad words, minimum of new tokens, temperature, top-k, top-p, min-p, typical-p, draw. Each function returns new logits
in which what is ruled out is -inf, checks the bounds of its argument (ValueError), and is the identity at its neutral value.
At temperature 0 the chain ends before the temperature: argmax.

This is the definition, and what runs on a GPU; on the CPU `gpt3.inference.drawing` finds the same without a pass too many.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

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


def add_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add to the logits of single tokens.

    Args:
        logits: (B, V) float.
        bias: what is added, by token id.
    """
    if not bias:
        return logits
    ids = torch.tensor(list(bias), device=logits.device)
    _require(bool((ids < logits.shape[-1]).all()), "biased token", int(ids.max()), f"below {logits.shape[-1]}")
    biased = logits.clone()
    biased[:, ids] += torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device)
    return biased


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


def penalise_counts(logits: Tensor, text: Tensor, presence: float, frequency: float) -> Tensor:
    """OpenAI's penalties (API reference, "Frequency and presence penalties"): logit - count · frequency - (count > 0) · presence.

    Args:
        logits: (B, V) float.
        text: (B, T) int64, what was written so far; the prompt is not in it ("how often sampled prior to the current position").
        presence, frequency: from -2 to 2; 0 is none.
    """
    _require(-2 <= presence <= 2, "presence penalty", presence, "from -2 to 2")
    _require(-2 <= frequency <= 2, "frequency penalty", frequency, "from -2 to 2")
    if presence == frequency == 0 or text.shape[-1] == 0:
        return logits
    counts = torch.zeros_like(logits).scatter_add(-1, text, torch.ones_like(text, dtype=logits.dtype))
    return logits - counts * frequency - (counts > 0) * presence


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


def forbid_sequences(logits: Tensor, history: Tensor, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Rule out every token that would complete one of these sequences (transformers' NoBadWordsLogitsProcessor).

    Args:
        logits: (B, V) float.
        history: (B, T) int64, prompt and text so far.
        sequences: of at least one id each; of one: the token is never chosen.
    """
    allowed = logits.clone() if sequences else logits
    for sequence in sequences:
        before = len(sequence) - 1
        _require(before >= 0, "sequence length", before + 1, "at least 1")
        if before <= history.shape[-1]:
            tail = history[:, history.shape[-1] - before :]  # (B, before)
            completed = (tail == torch.tensor(sequence[:-1], device=history.device, dtype=history.dtype)).all(-1)
            allowed[completed, sequence[-1]] = -torch.inf
    return allowed


def hold_back(logits: Tensor, ends: Sequence[int]) -> Tensor:
    """Rule out the tokens that end a text (before it has its minimum of tokens)."""
    held = logits.clone()
    held[:, list(ends)] = -torch.inf
    return held


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


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the entropy, until they have probability p (Meister et al. 2022).

    Args:
        logits: (B, V) float.
        p: above 0, up to 1; 1 keeps all.
    """
    _require(0 < p <= 1, "typical-p", p, "above 0 and at most 1")
    if p == 1:
        return logits
    surprise = -logits.log_softmax(-1)
    probabilities = (-surprise).exp()
    entropy = (surprise * probabilities).nansum(-1, keepdim=True)
    distance, ids = (surprise - entropy).abs().sort(-1)
    below = (probabilities.gather(-1, ids).cumsum(-1) < p).sum(-1, keepdim=True)
    farthest = distance.gather(-1, below.clamp(max=logits.shape[-1] - 1))
    return logits.masked_fill((surprise - entropy).abs() > farthest, -torch.inf)


def process(
    logits: Tensor,
    history: Tensor,
    options: SamplingOptions,
    vocabulary: int,
    *,
    written: int = 0,
    ends: Sequence[int] = (),
    bad_words: Sequence[Sequence[int]] = (),
) -> Tensor:
    """The whole chain, in its order.

    Args:
        logits: (B, V) of any float type; what comes back is float32.
        history: (B, T) int64, prompt and text so far.
        vocabulary: ids from here on are never chosen.
        written: how many of the last tokens of `history` are text; the others are prompt.
        ends: tokens that end a text.
        bad_words: `options.bad_words` as ids.
    """
    logits = limit_vocabulary(logits.float(), vocabulary)
    logits = add_bias(logits, options.logit_bias)
    logits = penalise_repetition(logits, history, options.repetition_penalty)
    text = history[:, history.shape[-1] - written :]
    logits = penalise_counts(logits, text, options.presence_penalty, options.frequency_penalty)
    logits = forbid_repeated_ngrams(logits, history, options.no_repeat_ngram)
    logits = forbid_sequences(logits, history, bad_words)
    if written < options.min_new_tokens and ends:
        logits = hold_back(logits, ends)
    return shape(logits, options)


def shape(logits: Tensor, options: SamplingOptions) -> Tensor:
    """The part of the chain that no history enters: temperature, top-k, top-p, min-p, typical-p."""
    if options.temperature == 0:
        return logits
    logits = apply_temperature(logits, options.temperature)
    logits = keep_top_k(logits, options.top_k)
    logits = keep_top_p(logits, options.top_p)
    logits = keep_min_p(logits, options.min_p)
    return keep_typical(logits, options.typical_p)


def uniform(seed: int, row: int, step: int, purpose: str = "") -> float:
    """A number in [0, 1), 53 bits, that is a function of (seed, row, step, purpose) and of nothing else.

    Having no generator state, a row's draws stay the same whatever batch the row is in and whenever others end.
    """
    digest = hashlib.blake2b(f"{seed}:{row}:{step}{purpose}".encode(), digest_size=8).digest()
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

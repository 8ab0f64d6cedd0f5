"""Rows, logits and options of all kinds for tests of the chain, and the chain in NumPy and torch alike."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from gpt3.inference.options import SamplingOptions
from gpt3.inference.row import Row
from gpt3.inference.sampling import Rows, candidates, edited

quick = settings(deadline=None, max_examples=60)

seeds = st.integers(0, 2**31)
counts = st.integers(1, 4)
sizes = st.integers(2, 80)
shares = st.floats(0.01, 0.99)
scales = st.sampled_from([0.01, 1.0, 5.0])
kinds = st.sampled_from(["numpy", "torch"])
neutral_or = lambda neutral, values: st.one_of(st.just(neutral), values)  # noqa: E731

options_of_all_kinds = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 60]),
    top_p=neutral_or(1.0, st.floats(0.05, 0.99)),
    min_p=neutral_or(0.0, st.floats(0.01, 0.5)),
    typical_p=neutral_or(1.0, st.floats(0.1, 0.95)),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-5, 5), max_size=3),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.4, 0.9]),
    no_repeat_ngram=st.integers(0, 3),
    bad_words=st.sampled_from([[], ["given as ids"]]),
    min_new_tokens=st.integers(0, 8),
)
WORDS = [[2], [1, 3], [0, 1, 4]]


def random_logits(seed: int, B: int, V: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * scale


def random_history(seed: int, B: int, V: int, T: int) -> torch.Tensor:
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed + 1))


def new_row(options, V, prompt=(), text=(), seed=0, number=0, **changes) -> Row:
    row = Row(list(prompt), options, **{"seed": seed, "number": number, "ends": set(), "vocabulary": V, **changes})
    for token in text:
        row.push(token)
    return row


def new_rows(options, V, history, written=0, **changes) -> list[Row]:
    """Rows of (B, T) tokens, the last `written` of them text."""
    T = history.shape[1] - written
    return [new_row(options, V, ids[:T], ids[T:], number=n, **changes) for n, ids in enumerate(history.tolist())]


def edit(kind, logits, rows) -> torch.Tensor:
    """(B, V) logits after the edits."""
    if kind == "torch":
        return edited(logits, Rows(rows, logits.device))
    return torch.from_numpy(np.stack([edited(x, Rows([row])) for x, row in zip(logits.numpy(), rows, strict=True)]))


def distribution(kind, logits, options) -> torch.Tensor:
    """(B, V) probabilities of what temperature and cuts leave."""
    if kind == "torch":
        _, weights = candidates(logits, options)
        return weights / weights.sum(-1, keepdim=True)
    result = np.zeros(logits.shape)
    for row, line in zip(result, logits.numpy(), strict=True):
        ids, weights = candidates(line, options)
        row[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return torch.from_numpy(result)


def probabilities(logits, row) -> np.ndarray:
    """(V,) of what a row's next token is drawn from; a single 1 at temperature 0; all 0 where nothing is left."""
    result = np.zeros(len(logits))
    line = edited(logits.numpy(), Rows([row]))
    if line.max() == -np.inf:
        return result
    if row.options.temperature == 0:
        result[line.argmax()] = 1
    else:
        found = distribution("numpy", torch.from_numpy(line)[None], row.options)[0]
        result[: len(line)] = found
    return result


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def same_distribution(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Probabilities against logits with -inf for what is ruled out."""
    expected = theirs.double().softmax(-1)
    return torch.equal(ours > 0, expected > 0) and torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-9)

"""Speculation does not change the distribution of what is written (Leviathan et al. 2023, appendix A.1)."""

import math
from collections import Counter

import numpy as np
import pytest

from gpt3.inference import drawing
from gpt3.inference.speculative_sampling import speculative_accept

V, K = 5, 3


def models(seed: int):
    """Target and draft: a table of next-token distributions by the last token; some tokens have no probability."""
    rng = np.random.default_rng(seed)
    tables = rng.dirichlet(np.full(V, 0.7), size=(2, V)).astype(np.float32)
    tables[0, :, 1] = 0
    tables[1, :, 3] = 0
    return tables / tables.sum(-1, keepdims=True)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_output_is_the_target_s_own(deterministic):
    """The first two tokens of 20,000 texts, against the exact probabilities of the 25 pairs."""
    target, draft = models(1)
    rng = np.random.default_rng(2)
    start, N = 0, 20_000
    pairs: Counter[tuple[int, int]] = Counter()
    accepted_in_all = 0
    for _ in range(N):
        text = [start]
        while len(text) < 3:
            drafted, last = [], text[-1]
            for _ in range(K):
                last = int(draft[last].argmax()) if deterministic else drawing.draw(draft[last], rng.random())
                drafted.append(last)
            path = [text[-1], *drafted]
            accepted, following = speculative_accept(
                target[path], None if deterministic else draft[path[:-1]], drafted, rng.random(K + 1)
            )
            accepted_in_all += accepted
            text += [*drafted[:accepted], following]
        pairs[text[1], text[2]] += 1
    expected = {(a, b): N * float(target[start, a]) * float(target[a, b]) for a in range(V) for b in range(V)}
    assert all(expected[pair] > 0 for pair in pairs)
    used = [pair for pair in expected if expected[pair] > 0]
    statistic = sum((pairs[pair] - expected[pair]) ** 2 / expected[pair] for pair in used)
    assert abs(statistic - (len(used) - 1)) / math.sqrt(2 * (len(used) - 1)) < 4
    assert accepted_in_all > N / 10


def test_acceptance_is_one_minus_the_distance():
    """Theorem 3.5: the expected acceptance is the sum of min(p, q)."""
    target, draft = (table[:1].repeat(2, 0) for table in models(4))
    rng = np.random.default_rng(0)
    N = 20_000
    hits = sum(
        speculative_accept(target, draft[:1], [drawing.draw(draft[0], rng.random())], rng.random(2))[0]
        for _ in range(N)
    )
    share = float(np.minimum(target[0], draft[0]).sum())
    assert abs(hits / N - share) < 4 * math.sqrt(share * (1 - share) / N)


def test_greedy_accepts_what_greedy_would_write():
    target = np.eye(V, dtype=np.float32)[[2, 4, 1]]
    for uniform in (0.0, 0.999):
        assert speculative_accept(target, None, [2, 4], [uniform] * 3) == (2, 1)
        assert speculative_accept(target, None, [2, 3], [uniform] * 3) == (1, 4)
        assert speculative_accept(target, None, [0, 4], [uniform] * 3) == (0, 2)


def test_a_draft_that_is_the_target_is_accepted_whole():
    table = models(9)[0]
    rng = np.random.default_rng(0)
    for _ in range(200):
        drafted = [drawing.draw(table[0], rng.random()), drawing.draw(table[1], rng.random())]
        assert speculative_accept(table[:3], table[:2], drafted, rng.random(3))[0] == 2


def test_no_draft_is_a_plain_draw():
    assert speculative_accept(np.eye(V, dtype=np.float32)[[3]], None, [], [0.4]) == (0, 3)


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="2 drafted tokens with 2 target rows"):
        speculative_accept(np.zeros((2, V), np.float32), None, [1, 2], [0.1, 0.1, 0.1])

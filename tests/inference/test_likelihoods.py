"""Log-probabilities of tokens are torch's log-softmax, and the likeliest is argmax's; also one distribution for many tokens."""

import numpy as np
import pytest
import torch

from gpt3.errors import RunError
from gpt3.inference.likelihoods import likelihoods
from gpt3.inference.scoring import judge


def draw(rows):
    logits = np.random.default_rng(rows).normal(size=(rows, 50)).astype(np.float32)
    logits[:, 7] = logits[:, 3] = 9.0  # equals: the lower id is the greedy one
    return logits, [(3, 7, 20)[row % 3] for row in range(rows)]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("rows", [1, 5, 21])
def test_they_are_log_softmaxs(kind, rows):
    logits, ids = draw(rows)
    found = likelihoods(kind(logits), ids)
    expected = torch.from_numpy(logits).log_softmax(-1)
    assert found.logprobs == pytest.approx(expected[range(rows), ids].numpy(), abs=1e-6)
    assert found.greedy.tolist() == [id_ == 3 for id_ in ids]
    whole = judge(kind(logits), ids)
    assert found.logprobs.tolist() == whole.logprobs.tolist()
    assert found.greedy.tolist() == (whole.ranks == 1).tolist()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_one_distribution_for_many_tokens(kind):
    logits, _ = draw(1)
    found = likelihoods(kind(logits), [3, 20, 7, 4])
    assert found.logprobs == pytest.approx(torch.from_numpy(logits).log_softmax(-1)[0, [3, 20, 7, 4]].numpy(), abs=1e-6)
    assert found.greedy.tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_damaged_logits_are_told(kind, value):
    logits, ids = draw(4)
    logits[2, ids[2]] = value
    with pytest.raises(RunError, match="NaN or infinite"), np.errstate(invalid="ignore"):
        likelihoods(kind(logits), ids)

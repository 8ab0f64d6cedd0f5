"""A probe while training: the accuracies that the tasks themselves give, and no trace in the model or its random state."""

import pytest
import torch

from gpt3.errors import InputError
from gpt3.evaluation import Source
from gpt3.evaluation.probe import Probe, check_probes
from gpt3.evaluation.protocol import Questions, score
from gpt3.evaluation.tasks import TASKS
from gpt3.training.run import train


def test_it_is_the_tasks_own_accuracy_and_leaves_no_trace(network, tokenizer, model):
    network.train()
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        found = Probe(["wiki-topic"], tokenizer, 10)(network, 10)
        assert network.training
    finally:
        network.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    task = TASKS["wiki-topic"]
    results = list(score(model, task, Questions(task, task.split(Source()), 1, 0, 50)))
    assert found == {"wiki-topic/acc": sum(result.metrics["acc"] for result in results) / 50}


def test_tasks_that_need_files_are_refused():
    with pytest.raises(InputError, match="--probe piqa needs files"):
        check_probes(["piqa"])
    with pytest.raises(InputError, match="--probe: no task aritmetic"):  # before any data is read
        train(probe=["aritmetic"], data=["nowhere"])

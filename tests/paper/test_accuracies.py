"""Answers of models are kept by their weights: a model trained again at its place is asked again."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt3.evaluation.tasks import TASKS
from gpt3.paper import asking
from gpt3.paper.accuracies import accuracies
from gpt3.paper.experiment import Work


def test_a_model_is_asked_once_and_again_with_other_weights(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = [], asking.answers
    monkeypatch.setattr(asking, "answers", lambda *given: asked.append(given[1].name) or answers(*given))
    place = tmp_path / "model"
    place.symlink_to(tiny)
    work = Work(tmp_path / "out", limit=3, threads="1")
    first, again = (accuracies(work, "m", place, [TASKS["novel-words"]], (0,)) for _ in range(2))
    assert asked == ["novel-words"]
    assert first == again

    place.unlink()
    network = AutoModelForCausalLM.from_pretrained(tiny)
    torch.nn.init.normal_(network.get_input_embeddings().weight, generator=torch.Generator().manual_seed(1))
    network.save_pretrained(place)
    for file in tiny.glob("tokenizer*"):
        (place / file.name).symlink_to(file)
    accuracies(work, "m", place, [TASKS["novel-words"]], (0,))
    assert asked == ["novel-words"] * 2
    assert len(list((tmp_path / "out" / "answers").glob("m-*"))) == 2

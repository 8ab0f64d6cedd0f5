"""Training while its data is prepared: Ctrl-C while a step waits, and what decides that it is prepared so."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from gpt3.corpus import blocks, prepare
from gpt3.corpus.growing import Producer, Sizes
from gpt3.report.run_folder import read_metrics
from gpt3.training import data
from gpt3.training.checkpoint import checkpoints
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan, settled, shape_of
from gpt3.training.run import train
from gpt3.training.trainer import Trainer


def test_ctrl_c_ends_a_step_that_waits_for_data(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "SIZES", Sizes(block_tokens=2000, head_bytes=4000, batch_bytes=4000))
    changes: dict[str, Any] = {"stream": "on", "steps": 30, "validate_every": 30, "checkpoint_every": 30}
    first_step, start = Trainer.one_step, Producer.start
    training = []

    def one_step(self: Trainer, *arguments: Any) -> Any:
        training.append(self.step)
        return first_step(self, *arguments)

    def never_ready(self: Producer) -> bool:
        """The first block comes, and later Ctrl-C instead of the second."""
        if not training:
            return start(self)
        os.kill(os.getpid(), signal.SIGINT)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "one_step", one_step)
        patch.setattr(Producer, "start", never_ready)
        patch.setattr(Producer, "want", lambda self, tokens: None)
        result = train(tiny(**changes))
    assert (result.finished, result.exit_code) == (False, 130)
    done = training[-1]  # the last step that began did not end
    assert 0 < done < 30
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")][-1] == f"step-{done}"
    assert train(tiny(**changes)).finished
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "lr" in row]
    assert steps == list(range(1, 31))
    (source,) = json.loads((tmp_path / "run" / "data.json").read_text())["sources"]
    assert (source["tokens"], source["epochs"], source["share"]) == (None, None, 1.0)


@pytest.mark.parametrize("large", [False, True])
def test_the_sources_are_opened_once(tiny, monkeypatch, large) -> None:
    opened = []
    real = data.open_sources
    for module in (data, prepare):
        monkeypatch.setattr(module, "open_sources", lambda names, **kind: opened.append(names) or real(names, **kind))
    monkeypatch.setattr(data, "STREAM_BYTES", 1000 if large else 1 << 30)
    options = tiny(tokenizer="own:300")
    ((_, folder),) = data.open_shard_folders(options, shape_of(options), prepare=large)
    assert (folder.known_tokens is None) == large
    folder.close()
    assert len(opened) == 1


def test_a_run_without_a_length_stays_prepared_before_when_it_resumes() -> None:
    for length, stream in (({}, "off"), ({"steps": 20}, "auto"), ({"tokens": "1M"}, "auto"), ({"minutes": 3}, "auto")):
        options = TrainOptions(model="17M", **length)
        kept = settled(options, make_plan(options, 10**6))
        assert kept.stream == stream
        assert data.may_stream(kept, ["a.jsonl"]) == data.may_stream(options, ["a.jsonl"])

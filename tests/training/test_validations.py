"""The validations of a run: a part while it trains, all at the end, with the weights and the masking that the run has."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from gpt3.errors import InputError
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints, read_state
from gpt3.training.data import open_data
from gpt3.training.distributed import choose_compute
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan, shape_of
from gpt3.training.run import train
from gpt3.training.run_folder import asked, settled_options
from gpt3.training.validation import Validation, validate
from gpt3.work_folder import differences


def scores(run: Path, name: str = "val/tokens") -> dict[int, float]:
    return {record["step"]: record[name] for record in read_metrics(run / "metrics.jsonl") if name in record}


def test_a_part_is_read_on_the_way_and_all_at_the_end_with_the_averaged_weights(tiny) -> None:
    """The last score is that of the final model folder, scored anew."""
    options = tiny(steps=4, validate_every=2, validation_tokens=64, ema=0.9, mask_documents=True)
    result = train(options)
    split = open_data(options, shape_of(options)).held_out
    assert scores(result.folder) == {2: 64, 4: len(split) - 1}
    model, _ = load_transformers(result.folder / "model", device="cpu", dtype="fp32")
    anew = validate(model, split, choose_compute("cpu", "fp32"), options.context, 8, mask_documents=True)
    assert scores(result.folder, "val/loss")[4] == pytest.approx(anew.loss, rel=1e-6)
    assert dataclasses.astuple(result.score) == pytest.approx(dataclasses.astuple(anew), rel=1e-6)
    unmasked = validate(model, split, choose_compute("cpu", "fp32"), options.context, 8)
    assert abs(unmasked.loss - anew.loss) > 1e-6 * anew.loss  # the masks are seen in the score


def test_the_best_is_chosen_among_validations_of_the_same_tokens(tiny, tmp_path: Path) -> None:
    """The last one reads more than the others, and does not count unless all is read each time."""
    for validation_tokens, best in ((64, 2), (10**9, 4)):
        result = train(
            tiny(
                steps=4,
                validate_every=2,
                validation_tokens=validation_tokens,
                out=str(tmp_path / str(best)),
                lr=1e-2,
                checkpoint_every=100,
            )
        )
        last = checkpoints(result.folder / "checkpoints")[-1]
        assert read_state(last)["early"]["best_step"] == best
        saved = [path.name for path in checkpoints(result.folder / "checkpoints")]
        assert saved == ["step-2", "step-4"]  # the best is saved when it is found


def test_a_run_that_stops_early_stays_stopped(tiny, tmp_path: Path) -> None:
    """Its last checkpoint knows: a second session finishes and takes no further step."""
    options = tiny(
        steps=40, validate_every=2, validation_tokens=10**9, early_stop=2, lr=1e-30
    )  # weights that stand still
    result = train(options)
    steps = max(scores(result.folder))
    assert steps == 6
    (result.folder / "model").rename(tmp_path / "first")
    again = train(options)
    assert max(record["step"] for record in read_metrics(again.folder / "metrics.jsonl")) == steps
    assert (again.folder / "model/model.safetensors").read_bytes() == (
        tmp_path / "first/model.safetensors"
    ).read_bytes()


def test_early_stopping_by_a_set_that_is_not_there_is_refused(tiny) -> None:
    with pytest.raises(InputError, match="--early-stop-on books: no such validation set; named sets here: none"):
        train(tiny(early_stop_on="books"))


def test_validations_take_a_bounded_share_of_the_training_time() -> None:
    plan = make_plan(TrainOptions(steps=100, batch_tokens=2**15, context=128, ramp_tokens=0), 10**7)
    for share, names, tokens in (
        (0.1, [""], 98_304),  # 10 steps of 32,768 tokens between two; a forward pass costs a third of a step
        (0.05, ["", "books"], 24_576),
        (0.2, [""], 100_000),
        (0.001, [""], 8192),
        (None, ["", "books"], 100_000),  # as in runs of earlier versions
    ):
        data = SimpleNamespace(validation=dict.fromkeys(names))
        found = Validation(TrainOptions(validation_share=share), data).most_tokens(plan)  # type: ignore[arg-type]
        assert found == tokens
        if share is not None and found > 8192:
            assert found * len(names) / 3 <= share * plan.batch_tokens * plan.validate_every


def test_a_run_of_an_earlier_version_validates_as_it_did(tmp_path: Path) -> None:
    options = TrainOptions(steps=20)
    before = {name: value for name, value in dataclasses.asdict(options).items() if name != "validation_share"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    assert settled_options(tmp_path, options).validation_share is None
    requested = {name: value for name, value in asked(options).items() if name != "validation_share"}
    assert not differences(requested, asked(options))  # it resumes

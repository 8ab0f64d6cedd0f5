"""The validations of a run: a part while it trains, all at the end, with the weights and the masking that the run has."""

import dataclasses
from pathlib import Path

import pytest

from gpt3.errors import InputError
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.training.checkpoint import checkpoints, read_state
from gpt3.training.data import open_data
from gpt3.training.distributed import choose_compute
from gpt3.training.plan import shape_of
from gpt3.training.run import train
from gpt3.training.validation import validate


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

"""The final model folder holds the model and nothing of the run's state, averaged or not, whoever wrote the checkpoint."""

from pathlib import Path

import pytest
from checkpoint_case import average_of, make_model, make_optimizer, make_tokenizer, read_set, same_tensors, train_step

from gpt3.model_folder.load import load_transformers
from gpt3.training.checkpoint import named_tensors
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.distributed import World
from gpt3.training.run_folder import extract_model


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("averaged", [False, True])
def test_state_and_generators_stay_behind(ranks: int, averaged: bool, tmp_path: Path) -> None:
    """The weights are in one file again, with the bytes that one process writes; they are the average, if there is one."""
    writers, worlds = [], [World(rank, ranks) for rank in range(ranks)]
    for world in worlds:
        model = make_model()
        optimizer, average = make_optimizer(model), average_of(model)
        train_step(model, model, optimizer, average, 0, slice(None))
        writers.append(CheckpointWriter(tmp_path, model, make_tokenizer(), world=world, timeout=20))
        checkpoint = writers[-1].save(optimizer, {"step": 4}, extra={"ema": average} if averaged else {})
    for writer in writers:
        writer.close()
    extract_model(checkpoint, tmp_path / "model")
    model.save_pretrained(tmp_path / "theirs")
    make_tokenizer().save_pretrained(tmp_path / "theirs")
    files = [{path.name for path in (tmp_path / name).iterdir() if path.is_file()} for name in ("model", "theirs")]
    assert files[0] == files[1]
    assert same_tensors(read_set(tmp_path / "model", "model"), average if averaged else named_tensors(model))
    if not averaged:
        content = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "theirs")]
        assert content[0] == content[1]
    loaded, _ = load_transformers(checkpoint, device="cpu", dtype="fp32")  # a model folder, in one file or two
    assert same_tensors(named_tensors(loaded), named_tensors(model))

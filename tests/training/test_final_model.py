"""The final model folder holds the model and nothing of the run's state, whole or in several files, averaged or not."""

import json
from pathlib import Path

from gpt3.training.run_folder import extract_model


def checkpoint(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_state_and_generators_stay_behind(tmp_path: Path) -> None:
    state = ("optimizer.safetensors", "random-0.safetensors", "random-1.safetensors", "state.json", "manifest.json")
    extract_model(
        checkpoint(tmp_path / "step-4", "config.json", "model.safetensors", "loss.py", *state), tmp_path / "model"
    )
    assert names(tmp_path / "model") == ["config.json", "loss.py", "model.safetensors"]


def test_the_average_takes_the_weights_place_in_files_and_index(tmp_path: Path) -> None:
    files = [f"{kind}-0000{n}-of-00002.safetensors" for kind in ("model", "ema", "optimizer") for n in (1, 2)]
    step = checkpoint(tmp_path / "step-4", "config.json", "random.safetensors", *files)
    for kind in ("model", "ema"):
        index = {"weight_map": {"a.weight": f"{kind}-00001-of-00002.safetensors"}}
        (step / f"{kind}.safetensors.index.json").write_text(json.dumps(index))
    extract_model(step, tmp_path / "model")
    found = names(tmp_path / "model")
    assert found == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert (tmp_path / "model" / found[1]).read_text() == "ema-00001-of-00002.safetensors"
    assert json.loads((tmp_path / "model" / found[3]).read_text())["weight_map"] == {"a.weight": found[1]}

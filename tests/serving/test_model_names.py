"""The ids of served models: given by --name, else the run's name or the hub id."""

from pathlib import Path
from unittest.mock import Mock

import pytest
from live_server import save_model

from gpt3.cli.serve import run
from gpt3.errors import InputError
from gpt3.model_folder.locate import name_of
from gpt3.serving.host import load_models
from gpt3.serving.options import ServeOptions


def test_a_models_id_is_its_runs_name_or_its_hub_id(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "runs" / "demo" / "model"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert [name_of(place) for place in (folder, ".", "checkpoints/step-2", "o/gpt2")] == [
        "demo",
        "demo",
        "step-2",
        "gpt2",
    ]
    monkeypatch.setattr("gpt3.serving.host.locate", lambda place: Path(place) if Path(place).exists() else place)
    monkeypatch.setattr("gpt3.inference.language_model.load", lambda place, **options: Mock())
    assert [*load_models(ServeOptions(model=[str(folder), "openai-community/gpt2"]))] == [
        "demo",
        "openai-community/gpt2",
    ]


def test_a_newest_run_that_does_not_load_is_not_the_only_one(tokenizer, tmp_path, monkeypatch) -> None:
    folder = save_model(tokenizer, tmp_path / "runs" / "demo" / "model")
    (folder / "model.safetensors").write_bytes(b"cut off")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"demo/model does not load .*, or name another model: gpt3 serve NAME$"):
        load_models(ServeOptions())


def test_names_are_as_many_as_models_and_differ(tokenizer, tmp_path) -> None:
    save_model(tokenizer, tmp_path / "same")
    with pytest.raises(InputError, match=r"two models have the name same\. Give each its own"):
        run(ServeOptions(model=[str(tmp_path / "same")] * 2, port=0))
    assert ServeOptions(model=["a", "b"], name=["one", "two"])
    assert ServeOptions(name=["one"])
    with pytest.raises(InputError, match="--name gives 1 name for 2 models"):
        ServeOptions(model=["a", "b"], name=["one"])

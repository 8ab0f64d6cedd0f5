"""Short names of published models: where they lead, what comes before them, what is said of a name that is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from foreign_models import gpt2, saved

from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.model_folder.known import KNOWN
from gpt3.model_folder.locate import HUB_ID, find, locate


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_short_name_is_a_hub_id() -> None:
    assert find("gpt2") == locate("GPT2") == "openai-community/gpt2"
    assert find("cerebras-1.3b") == "cerebras/Cerebras-GPT-1.3B"
    assert find("gpt3-dev-125m-1202") == "k050506koch/GPT3-dev-125m-1202"
    assert all(name == name.lower() and HUB_ID.fullmatch(known.hub_id) for name, known in KNOWN.items())
    assert "opt-350m" not in KNOWN  # its embedding is narrower than the model


def test_a_folder_and_a_run_of_that_name_come_first(home: Path) -> None:
    model = saved(gpt2(), home / "runs" / "gpt2" / "model")
    assert find("gpt2") == Path("runs/gpt2/model")
    shutil.copytree(model, home / "gpt2")
    assert find("gpt2") == Path("gpt2")


def test_a_name_that_is_none_says_which_are_near(home: Path) -> None:
    (home / "runs" / "novels").mkdir(parents=True)
    for wrong, near in (("gpt2-xll", "gpt2-xl"), ("cerebras-111", "cerebras-111m"), ("novel", "novels")):
        with pytest.raises(
            InputError, match=rf"--model {wrong}: no such folder.*Did you mean [^?]*{near}\b.*info --known"
        ):
            locate(wrong)
    with pytest.raises(InputError) as error:
        locate("zzz")
    assert "Did you mean" not in str(error.value)


def test_info_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--known"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [[name, known.hub_id] for name, known in KNOWN.items()]
    assert cli.main(["info", "--known", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"name": "gpt2", "hub_id": "openai-community/gpt2", "parameters": "124M", "licence": "mit"}
    assert cli.main(["info", "--known", "gpt2"]) == 2
    assert capsys.readouterr().err == "gpt3 info: --known lists the short names; leave out gpt2\n"

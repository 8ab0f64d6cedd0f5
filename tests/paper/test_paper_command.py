"""`gpt3 paper`: what runs, what is kept and resumed, what is refused, and the page."""

import dataclasses
import importlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from gpt3.cli.main import main
from gpt3.model_folder.locate import STARTER
from gpt3.paper import sizes
from gpt3.paper.experiment import Chart, Drawing, Interrupted, Table, Work
from gpt3.paper.experiments import EXPERIMENTS, experiment
from gpt3.paper.page import section
from gpt3.report.svg import Axes, Line


def test_sizes_are_those_of_the_papers_table_d1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "paper"
    assert main(["paper", "2.1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'paper.html'}\n"
    rows = json.loads((out / "2.1.json").read_text())["rows"]
    # Table D.1, millions
    assert [round(row["parameters"] / 1e6, -1 if row["parameters"] > 1e9 else 0) for row in rows] == [
        125, 356, 760, 1320, 2650, 6660, 12850, 174600
    ]  # fmt: skip
    page = (out / "paper.html").read_text()
    assert "125,226,240" in page
    assert '<h2 id="f2.1">' in page


def test_a_finished_experiment_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "paper"
    main(["paper", "2.1", "--out", str(out)])
    content = json.loads((out / "2.1.json").read_text())
    (out / "2.1.json").write_text(json.dumps(content | {"rows": content["rows"][:1]}))
    assert main(["paper", "2.1", "--out", str(out)]) == 0
    assert "already measured" in capsys.readouterr().err
    assert "174,604,259,328" not in (out / "paper.html").read_text()


def test_an_experiment_to_which_people_add_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "EXPERIMENT", dataclasses.replace(sizes.EXPERIMENT, again=True))
    out = tmp_path / "paper"
    main(["paper", "2.1", "--out", str(out)])
    content = json.loads((out / "2.1.json").read_text())
    (out / "2.1.json").write_text(json.dumps(content | {"rows": []}))
    assert main(["paper", "2.1", "--out", str(out)]) == 0
    assert json.loads((out / "2.1.json").read_text())["rows"] == content["rows"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["3.11"], r"3\.11 is no experiment of gpt3 paper\. (Did you mean|Choose of)"),
        (
            ["2.1", "--data", "wiki", __file__],
            r"test_paper_command.py is no experiment .*write --data .*test_paper_command.py\.",
        ),
        (["2.1", "--model", "nothing-there"], r"--model nothing-there"),
        (["2.1", "--minutes", "0"], r"--minutes 0.0 must be a number above 0"),
    ],
)
def test_refused(words: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", *words, "--out", str(tmp_path / "paper")]) == 2
    assert re.search(error, capsys.readouterr().err)
    assert not (tmp_path / "paper" / "paper.html").exists()


def test_a_missing_scipy_is_named_before_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def without(name: str) -> ModuleType:
        if name.split(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", without)
    assert main(["paper", "3.1", "--out", str(tmp_path / "paper")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "fitting laws" in error
    assert "[paper]" in error
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_folder_of_other_files_and_other_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paper"
    out.mkdir()
    (out / "thesis.tex").write_text("my own paper")
    assert main(["paper", "2.1", "--out", str(out)]) == 2
    assert f"--out {out} holds other files" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    out = tmp_path / "results"
    assert main(["paper", "2.1", "--out", str(out)]) == 0
    assert main(["paper", "2.1", "--out", str(out), "--minutes", "9"]) == 2
    assert "--minutes was 60.0, now 9.0" in capsys.readouterr().err


def test_a_model_that_is_added_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measure(work: Work) -> dict[str, list[str]]:
        seen.append([model.name for model in work.models])
        return {"rows": []}

    monkeypatch.setattr(sizes, "EXPERIMENT", dataclasses.replace(sizes.EXPERIMENT, measure=measure, share=1.0))
    other = tmp_path / "other"
    shutil.copytree(STARTER, other)
    for models in (["starter"], ["starter"], ["starter", "other"]):
        given = [word for name in models for word in ("--model", str(other) if name == "other" else name)]
        assert main(["paper", "2.1", "--out", str(tmp_path / "paper"), *given]) == 0
    assert [sorted(names) for names in seen] == [["starter"], ["other", "starter"]]
    (other / "model.safetensors").touch()  # as if it was trained again
    assert main(["paper", "2.1", "--out", str(tmp_path / "paper"), *given]) == 0
    assert len(seen) == 3


@pytest.mark.parametrize("figure", EXPERIMENTS)
def test_a_file_is_the_experiment_it_is_registered_as(figure: str) -> None:
    assert experiment(figure).figure == figure


def test_once_measures_once(tmp_path: Path) -> None:
    work, calls = Work(tmp_path), []

    def measure() -> list[int]:
        calls.append(1)
        return [1, 2]

    assert work.once("a", measure) == work.once("a", measure) == [1, 2]
    assert len(calls) == 1


def test_an_interruption_ends_with_the_signals_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt3.paper import run

    def interrupted(*_: object) -> None:
        raise Interrupted(143)

    monkeypatch.setattr(run, "measure", interrupted)
    assert main(["paper", "2.1", "--out", str(tmp_path)]) == 143


def test_a_section_shows_everything_and_escapes_it() -> None:
    line = Line("<b>ours</b>", [(1.0, 2.0, 0.1), (10.0, 1.5, 0.0)], "#0072b2")
    drawing = Drawing(
        ["a < b"],
        ["c & d"],
        ["e"],
        [Chart("f", Axes("g", [line], "h", bottom=1.0), [line])],
        [Table("i", [["j"], ["<k>"]])],
    )
    html = section(drawing)

    class Tags(HTMLParser):
        text = ""

        def handle_data(self, data: str) -> None:
            self.text += data

    tags = Tags()
    tags.feed(html)
    assert all(word in tags.text for word in ("a < b", "c & d", "<b>ours</b>", "<k>", "f", "h"))

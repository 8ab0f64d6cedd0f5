"""`gpt3 eval` shows scores over all and over clean questions where the training text is known, equal to a count by hand."""

import json
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.evaluation import Result
from gpt3.evaluation.results import task_score
from gpt3.evaluation.tasks import TASKS

STORY = "the old lamp by the harbour wall was lit every evening by a woman who knew"
ROWS = [
    {"query": f"Question: {STORY} all {n} ships?", "choices": ["by their sails", "by their songs"], "gold": n % 2}
    if n in (1, 2)
    else {"query": f"Question: sum {n}?", "choices": [f"{n} of them came home and stayed there", "none"], "gold": 0}
    for n in range(6)
]
"""Rows 1 and 2 share 13 words with STORY, the others none."""


@pytest.fixture
def run(folder, tmp_path, monkeypatch) -> Path:
    """A run folder whose training text holds STORY, with the tiny model."""
    import shutil

    import yaml

    from gpt3.corpus.prepare import prepare_cached
    from gpt3.corpus.shards import open_shards

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    texts = [
        *(f"Tale {n}: {STORY.upper()}!" for n in range(9)),
        *(f"Document {n} of a small corpus." for n in range(30)),
    ]
    Path("text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    shutil.copytree(folder, "tokenizer")
    shards = open_shards(prepare_cached("text.jsonl", "tokenizer", validation_fraction=0.1))
    place = tmp_path / "runs" / "a"
    shutil.copytree(folder, place / "model")
    config = {"data": ["text.jsonl"], "tokenizer": "tokenizer", "validation_fraction": 0.1, "model": "17M"}
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    row = {"name": "text.jsonl", "tokens": shards.manifest.splits["train"].tokens}
    (place / "data.json").write_text(json.dumps({"sources": [row]}))
    Path("rows").mkdir()
    Path("rows/piqa.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return place


COMMAND = ["eval", "--tasks", "piqa", "--shots", "0,1", "--data-dir", "rows", "--dtype", "fp32", "--out", "out"]


def test_a_planted_overlap_is_taken_out_of_the_clean_score(run, capsys):
    assert cli.main([*COMMAND, "--model", str(run)]) == 0
    shown = capsys.readouterr()
    assert "rel. diff." in shown.out
    assert "contamination: reading" in shown.err
    results = json.loads(Path("out/results.json").read_text())["results"]
    assert [entry["shots"] for entry in results] == [0, 1]
    for entry in results:
        lines = Path(f"out/examples/piqa-{entry['shots']}.jsonl").read_text().splitlines()[1:]
        right = [json.loads(line)["metrics"]["acc"] for line in lines]
        every, clean = sum(right) / 6, sum(right[n] for n in (0, 3, 4, 5)) / 4
        found = entry["contamination"]
        assert (found["dirty"], found["clean"]) == (2, 4)
        assert found["metrics"]["acc"]["all"] == entry["metrics"]["acc"]["value"] == every
        assert found["metrics"]["acc"]["clean"] == clean
        assert found["metrics"]["acc"]["relative_difference"] == (
            pytest.approx((clean - every) / every) if every else None
        )
    verdicts = [json.loads(line)["clean"] for line in Path("out/contamination/examples.jsonl").read_text().splitlines()]
    assert verdicts == [True, False, False, True, True, True]
    page = Path("out/report.html").read_text()
    assert "<th>dirty</th><th>clean</th><th>rel. diff.</th>" in page


def test_the_text_may_be_named_or_left_out(run, capsys):
    Path("other.txt").write_text(f"{STORY} everything and more")
    model = ["--model", "tokenizer"]  # the same weights, but no run
    for option, dirty in ((["--contamination", "other.txt"], 2), (["--contamination", "no"], None), ([], None)):
        assert cli.main([*COMMAND, *model, *option, "--json"]) == 0
        entry = json.loads(capsys.readouterr().out)["results"][0]
        assert (entry["contamination"] or {}).get("dirty") == dirty
    assert cli.main([*COMMAND, "--model", str(run), "--contamination", "no", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["contamination"] is None
    assert cli.main([*COMMAND, *model, "--contamination", "nowhere.txt"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err


def test_data_that_is_gone_is_said_and_the_scores_stand(run, capsys):
    (run / "data.json").unlink()
    assert cli.main([*COMMAND, "--model", str(run), "--json"]) == 0
    shown = capsys.readouterr()
    assert "contamination is not measured: " in shown.err
    assert json.loads(shown.out)["results"][0]["contamination"] is None


def test_what_is_not_defined_is_none():
    results = [Result(n, str(n), {"acc": acc}) for n, acc in enumerate((0.0, 0.0, 1.0))]
    task = TASKS["piqa"]
    none_right = task_score(task, 0, results[:2], [True, False]).contamination["metrics"]["acc"]
    assert none_right == {"all": 0.0, "clean": 0.0, "relative_difference": None}
    none_clean = task_score(task, 0, results, [False] * 3).contamination["metrics"]["acc"]
    assert none_clean == {"all": pytest.approx(1 / 3), "clean": None, "relative_difference": None}
    assert task_score(task, 0, results).contamination is None


def test_lambadas_figures_each_have_their_difference():
    results = [Result(n, str(n), {"acc": float(n > 0), "nll": float(n)}) for n in range(3)]
    found = task_score(TASKS["lambada"], 0, results, [True, True, False]).contamination["metrics"]
    assert found["acc"]["clean"] == 0.5
    assert found["ppl"]["clean"] == pytest.approx(2.718281828459045**0.5)
    assert found["acc"]["relative_difference"] == pytest.approx((1 / 2 - 2 / 3) / (2 / 3))


@pytest.fixture
def tuned(run, folder):
    """A fine-tuned run of the run, one of whose conversations has row 4's words; and a base that is no run."""
    import dataclasses
    import shutil

    import yaml

    from gpt3.finetuning.options import FinetuneOptions

    def make(name, base):
        rows = [{"prompt": f"Hello {n}?", "response": f"Good day, number {n}."} for n in range(20)]
        rows.append({"prompt": "Sum 4?", "response": "4 of them came home and stayed there!"})
        Path("chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
        place = Path("runs") / name
        shutil.copytree(folder, place / "model")
        options = FinetuneOptions(model=base, data=["chats.jsonl"], validation_fraction=0)
        (place / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(options)))
        (place / "data.json").write_text(json.dumps({"sources": [{"name": "chats.jsonl", "documents": len(rows)}]}))
        return place

    return make


def dirty(place):
    assert cli.main([*COMMAND, "--model", str(place)]) == 0
    verdicts = [json.loads(line) for line in Path("out/contamination/examples.jsonl").read_text().splitlines()]
    return [verdict["id"] for verdict in verdicts if not verdict["clean"]]


def test_a_fine_tuned_runs_text_is_its_conversations_and_its_bases(run, tuned, capsys):
    assert dirty(tuned("sft-a", str(run / "model"))) == ["1", "2", "4"]
    capsys.readouterr()
    assert dirty(tuned("sft-b", "tokenizer")) == ["4"]  # a model folder that no run wrote
    assert "only the fine-tuning data is searched, not the text of the base model tokenizer" in capsys.readouterr().err
    Path("chats.jsonl").write_text('{"prompt": "Other?", "response": "Yes."}')
    assert cli.main([*COMMAND, "--model", "runs/sft-b"]) == 0
    error = capsys.readouterr().err
    assert "contamination is not measured: --model runs/sft-b: its data has changed since it was trained" in error


def test_a_chain_of_fine_tuned_runs_is_followed(run, tuned):
    tuned("sft-a", str(run / "model"))
    assert dirty(tuned("sft-b", "runs/sft-a/model")) == ["1", "2", "4"]


def test_the_contamination_command_reads_a_fine_tuned_run(run, tuned, capsys):
    documents = []
    for place in (run, tuned("sft-a", str(run / "model"))):
        assert cli.main(["contamination", "--model", str(place), "--data-dir", "rows", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        documents.append(found["documents"])
        assert found["tasks"][0]["dirty"] == 2
    assert documents[1] == documents[0] + 21  # conversations

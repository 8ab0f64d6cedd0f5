"""The report: one file that needs nothing else, holds whatever the runs wrote, and never runs it."""

import base64
import hashlib
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.report.charts import MOST_POINTS
from gpt3.report.page import compact, embedded, write_report
from gpt3.report.run_folder import unique_names

EVIL = "</script ></script><script>alert(1)</script><b>&amp; <!-- <img onerror=alert(2)> \u2028 \"'` ${x} @@DATA@@漢🙂\x00\x1b"


class Page(HTMLParser):
    """What the standard library's parser finds in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.content: dict[str, str] = {}  # of scripts, style and title, by tag and type
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = tag + (":" + dict(attrs)["type"] if "type" in dict(attrs) else "")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in:
            self.content[self._in] = self.content.get(self._in, "") + data

    @property
    def data(self):
        return json.loads(self.content["script:application/json"])


def make_run(folder: Path, records: list[dict], **files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    for name, content in files.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(content, encoding="utf-8")
    return folder


def curve(steps: int, **changes) -> list[dict]:
    return [
        {"step": i, "tokens": i * 512, "loss": 3 + 5 / i, "lr": 1e-3, "grad_norm": 0.7, "tokens_per_s": 1e4, "mfu": 0.4,
         "seconds": i / 9}
        | changes
        for i in range(1, steps + 1)
    ]  # fmt: skip


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_a_whole_run(tmp_path: Path) -> None:
    validation = {
        "step": 20,
        "tokens": 10240,
        "val/loss": 3.3,
        "val/loss_low": 3.2,
        "val/loss_high": 3.4,
        "val/perplexity": 27.1,
    }
    skipped = {"step": 7, "tokens": 3584, "skipped": "loss 9 is far off", "windows": [56, 63]}
    sources = [
        {"name": "wiki", "tokens": 100, "weight": 3, "share": 0.7, "epochs": 2.5, "documents": 9},
        {"name": "books", "weight": 1},
    ]
    run = make_run(
        tmp_path / "run",
        [*curve(20), validation, skipped],
        samples_jsonl="".join(json.dumps({"step": s, "prompt": "The ", "text": f"sea {s}"}) + "\n" for s in (10, 20, 10))
        + '{"st',
        config_yaml="steps: 40\nlr: 0.0009999999999999998\ndata: [wiki, books]\nminutes: null\n",
        environment_json=json.dumps({"torch": "2.13", "device": {"name": "cpu", "cores": 2}}),
        data_json=json.dumps({"sources": sources}),
    )  # fmt: skip
    data = read(write_report([run], tmp_path / "page.html")).data
    (shown,) = data["runs"]
    assert shown["name"] == "run"
    assert not shown["finished"]
    assert shown["notes"] == []
    figures = {row["label"]: (row["text"], row["hint"]) for row in shown["summary"]}
    assert figures["held-out loss"] == ("3.300", "3.200 to 3.400")
    assert figures["perplexity"] == ("27.1", "")
    assert figures["steps"] == ("20", "of 40")
    assert figures["tokens"] == ("10.2K", "")
    assert figures["MFU"] == ("40.0%", "median")
    assert figures["skipped steps"] == ("1", "")
    assert shown["skips"] == [{"step": 7, "tokens": 3584, "reason": "loss 9 is far off", "windows": ["56", "63"]}]
    assert [(s["step"], s["text"]) for s in shown["samples"]] == [(10, "sea 10"), (20, "sea 20")]
    assert {row["key"]: row["values"] for row in data["config"]} == {
        "steps": ["40"], "lr": ["0.001"], "data": ["wiki, books"], "minutes": [""],
    }  # fmt: skip
    assert {row["key"]: row["values"][0] for row in data["environment"]} == {
        "torch": "2.13", "device.name": "cpu", "device.cores": "2",
    }  # fmt: skip
    assert [(s["name"], s["share"], s["asked"], s["epochs"]) for s in shown["sources"]] == [
        ("wiki", 0.7, 0.75, 2.5), ("books", None, 0.25, None),
    ]  # fmt: skip
    (run / "model").mkdir()
    assert read(write_report([run], tmp_path / "page.html")).data["runs"][0]["finished"]


def test_nothing_of_a_run_is_taken_for_markup_and_nothing_is_loaded(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "<b>run & co",
        [*curve(3, **{f"eval/{EVIL}": 1.0}), {"step": 3, "skipped": EVIL}],
        samples_jsonl=json.dumps({"step": 1, "prompt": EVIL, "text": EVIL + "\ud800"}) + "\n",
        config_yaml=json.dumps({"model": EVIL, EVIL: 1}),
        data_json=json.dumps({"sources": [{"name": EVIL}]}),
    )
    text = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [tag for tag, _ in page.tags] == [
        "html",
        "head",
        "meta",
        "meta",
        "meta",
        "meta",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "noscript",
        "p",
        "script",
        "script",
    ]
    assert page.content["title"] == "gpt3 · <b>run & co"
    assert page.data["runs"][0]["samples"][0]["text"] == EVIL + "\ud800"
    assert page.data["runs"][0]["skips"][0]["reason"] == EVIL
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.tags)
    assert set(re.findall(r"https?://[\w.]+", page.content["script"] + page.content["style"])) == {
        "http://www.w3.org"
    }  # SVG's name
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; ")
    for kind in ("script", "style"):  # the browser runs this script and no other
        digest = base64.b64encode(hashlib.sha256(page.content[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_text_comes_back_from_a_script_element(text: str) -> None:
    assert "<" not in embedded(
        [text + EVIL]
    )  # a browser ends a script at more than `</script>`, and begins a comment in it
    page = Page(f'<script type="application/json">{embedded([text])}</script><i>')
    assert page.data == [text]
    assert [tag for tag, _ in page.tags] == ["script", "i"]


@pytest.mark.parametrize(
    "records",
    [[], curve(1), [{"step": 1, "tokens": 5, "loss": None, "lr": math.nan, "val/loss": math.inf}], [{"step": 1}], [{"loss": 3.0}],
     [{"step": 4, "tokens": 9, "val/loss": 3.0}]],
)  # fmt: skip
def test_a_run_of_few_numbers_or_none(tmp_path: Path, records: list[dict]) -> None:
    run = make_run(tmp_path / "run", records)
    data = read(write_report([run, run], tmp_path / "page.html")).data
    assert len(data["runs"]) == 2
    assert "NaN" not in json.dumps(data)


def test_a_run_that_diverged_has_no_loss_from_before(tmp_path: Path) -> None:
    """A gap in a curve says little, and the last finite loss would win a comparison."""
    lost = [{"step": step, "tokens": 512 * step, "loss": None} for step in (21, 22)]
    validations = [{"step": step, "tokens": 512 * step, "val/loss": loss} for step, loss in ((20, 3.0), (22, None))]
    skipped = {"step": 5, "tokens": 2560, "loss": None, "skipped": "the loss is nan"}  # this one has a mark of its own
    runs = [
        make_run(tmp_path / "lost", [*curve(20), *lost, *validations, skipped]),
        make_run(tmp_path / "whole", curve(9)),
    ]
    first, second = read(write_report(runs, tmp_path / "page.html")).data["runs"]
    figures = {row["label"]: (row["text"], row["better"]) for row in first["summary"]}
    assert figures["train loss"] == figures["held-out loss"] == ("not finite", "")
    assert first["notes"] == [
        "loss is not finite in 2 of 22 records, first at step 21",
        "val/loss is not finite in 1 of 2 records, first at step 22",
    ]
    assert second["notes"] == []


def test_damaged_files_beside_the_metrics_are_named_and_left_out(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        curve(2),
        samples_jsonl='not json\n[1]\n{"step": 1, "prompt": null, "text": "kept"}\n',
        config_yaml="a: [1\n",
        environment_json="[]",
        data_json='{"sources": 3}',
    )
    (shown,) = read(write_report([run], tmp_path / "page.html")).data["runs"]
    assert [s["text"] for s in shown["samples"]] == ["kept"]
    assert [note.split()[0].rstrip(":") for note in shown["notes"]] == [
        "config.yaml",
        "environment.json",
        "samples.jsonl",
    ]
    assert "2 lines" in shown["notes"][-1]


def test_long_runs_are_thinned_with_their_extremes(tmp_path: Path) -> None:
    records = curve(20_000)
    records[12_345]["loss"], records[15_000]["loss"] = 77.0, None
    page = write_report([make_run(tmp_path / "run", records)], tmp_path / "page.html")
    loss = read(page).data["runs"][0]["series"]["loss"]
    assert len(loss["y"]) == MOST_POINTS
    assert (loss["count"], loss["thinned"]) == (20_000, True)
    assert max(v for v in loss["high"] if v is not None) == 77
    assert page.stat().st_size < 500_000


def test_several_runs_are_told_apart_and_their_differences_found(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "run", curve(2), config_yaml="lr: 0.1\nseed: 1\n")
    second = make_run(tmp_path / "b" / "run", curve(3), config_yaml="lr: 0.2\nseed: 1\nclip: 1.0\n")
    data = read(write_report([first, second], tmp_path / "page.html")).data
    assert [run["name"] for run in data["runs"]] == ["a/run", "b/run"]
    assert {row["key"]: (row["values"], row["differs"]) for row in data["config"]} == {
        "lr": (["0.1", "0.2"], True), "seed": (["1", "1"], False), "clip": ([None, "1.0"], True),
    }  # fmt: skip
    assert unique_names([first]) == ["run"]


@pytest.mark.parametrize(
    ("config", "source", "ranked"),
    [
        ("lr: 0.2\n", {}, {"held-out loss", "bits per byte", "train loss", "tokens/s", "MFU"}),
        ("data: [b.txt]\n", {"name": "b.txt"}, {"tokens/s", "MFU"}),
        ("tokenizer: own:300\n", {"tokens": 130}, {"bits per byte", "tokens/s", "MFU"}),
        ("model: 17M\n", {"documents": 8}, set()),
    ],
)
def test_only_what_can_be_compared_has_a_best_run(config: str, source: dict, ranked: set[str], tmp_path: Path) -> None:
    """A loss per token of another tokenizer, or any loss on other text, is no better for being lower."""
    validation = {"step": 9, "tokens": 9, "val/loss": 3.0, "val/bits_per_byte": 1.0}
    runs = [
        make_run(
            tmp_path / name,
            [*curve(2), validation],
            config_yaml=text,
            data_json=json.dumps({"sources": [{"name": "a.txt", "documents": 9, "tokens": 100} | changes]}),
        )
        for name, text, changes in (("one", "lr: 0.1\n", {}), ("two", config, source))
    ]
    data = read(write_report(runs, tmp_path / "page.html")).data
    assert {row["label"] for run in data["runs"] for row in run["summary"] if row["better"]} == ranked


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        run = make_run(Path("runs") / name, curve(2))
        os.utime(run / "metrics.jsonl", (10**9 - age, 10**9 - age))
    assert cli.main(["report"]) == 0  # the newest
    assert capsys.readouterr().out.strip() == str(Path("runs/new/report.html"))
    assert cli.main(["report", "runs/old", "old", "--out", "deep/page.html"]) == 0  # named twice, drawn once
    assert [run["name"] for run in read(Path("deep/page.html")).data["runs"]] == ["old"]
    Path("new").mkdir()  # a folder of texts that has the run's name
    assert cli.main(["report", "new", "--out", "deep/page.html"]) == 0  # an earlier page is replaced
    assert cli.main(["report", "new", "old"]) == 0
    assert [run["name"] for run in read(Path("report.html")).data["runs"]] == ["new", "old"]


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["nowhere"], ["nowhere", "no such run folder"]),
        (["."], ["not a run folder", "metrics.jsonl"]),
        ([], ["gpt3 train"]),
        (["bad"], ["bad/metrics.jsonl, line 2 is not JSON"]),
        (["good", "--out", "good"], ["--out good", "folder"]),
        (["good", "--out", "notes.txt"], ["--out notes.txt exists", "Name a new file"]),
        (["good", "--out", os.devnull], ["device"]),
        (["good", "--out", "-"], ["--out - is not standard output"]),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], needles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    make_run(Path("good"), curve(1))
    Path("notes.txt").write_text("mine")
    Path("bad").mkdir()
    Path("bad/metrics.jsonl").write_text('{"step": 1}\n{"step":\n{"step": 2}\n')
    assert cli.main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert all(needle in error for needle in needles), error
    assert not list(tmp_path.rglob("*.html"))
    assert Path("notes.txt").read_text() == "mine"


def test_metrics_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        write_report([tmp_path], tmp_path / "page.html")


def test_counts_are_short() -> None:
    assert [compact(n) for n in (0, 512, 1000, 10240, 2_966_000, 300e9, 999_999)] == [
        "0", "512", "1K", "10.2K", "2.97M", "300B", "1000K",
    ]  # fmt: skip

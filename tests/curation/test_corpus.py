"""`gpt3 corpus`: recipes, what comes out, resuming after kills, the same bytes for any number of workers."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import zstandard
from test_heuristics import BAD, GOOD

from gpt3.cli import main as cli
from gpt3.corpus.mixture import read_mixture
from gpt3.corpus.shards import documents as tokens_of
from gpt3.corpus.shards import open_shards
from gpt3.curation.near_duplicates import NearDuplicateOptions, NearDuplicates
from gpt3.curation.recipe import read_recipe
from gpt3.errors import InputError
from gpt3.training.run_folder import source_table

RECIPE = """
sources:
  - {name: wiki, data: good.jsonl, weight: 3, trusted: true}
  - {name: web, data: "web*.jsonl", weight: 60}
heuristics: fineweb
quality: {alpha: 1}
near_duplicates: {at_least: 0.7}
decontaminate: tasks.jsonl
validation_fraction: 0.1
"""
WORDS = "river miller village island stone water door child grave hill spring bank wall town foot north"
NOUNS = WORDS.split()


SENTENCES = (
    "The {} of the {} and that {} have gone {} with it.",
    "Nobody asked {3} times to see the {0}, and we have been to that {1} with a {2}.",
    "They say that {3} people live in the {0} and have a {1} for every {2}.",
    "With that {} to be found at the {}, a few of the men and their {} went {} times.",
    "It was {3} when a {0} fell to the ground, and the {1} broke a {2}.",
)


def prose(draw: random.Random, sentences: int) -> str:
    """Sentences that the filters keep."""
    return " ".join(
        draw.choice(SENTENCES).format(*draw.sample(NOUNS, 3), draw.randrange(9999)) for _ in range(sentences)
    )


def write_inputs(folder: Path, documents: int = 60) -> None:
    draw = random.Random(0)
    good = [prose(draw, 8) for _ in range(documents)]
    web = [prose(draw, 6) + f" buy cheap shoes {draw.randrange(999)} now and click here." for _ in range(documents)]
    web += [
        *BAD.values(),
        GOOD,
        good[0],
        good[1] + " The end of it.",
        web[0],
        *(prose(draw, 7) for _ in range(documents)),
    ]
    draw.shuffle(web)
    good.append(prose(draw, 30))
    question = " ".join(good[-1].split()[:20])
    for name, texts in (("good", good), ("web1", web[::2]), ("web2", web[1::2]), ("tasks", [question])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        os.utime(folder / f"{name}.jsonl", ns=(10**18, 10**18))
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs and the corpus made of them."""
    folder = tmp_path_factory.mktemp("corpus")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["corpus", "recipe.yaml", "--out", "out", "--workers", "1"]) == 0
    return folder


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every file but locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def texts_of(folder: Path) -> list[str]:
    shards = open_shards(folder)
    decode = shards.tokenizer().decode
    splits = [split for split in map(shards.split, ("train", "validation")) if len(split)]
    return [decode(ids) for split in splits for ids in tokens_of(split)]


def lines_of(*names: str) -> list[str]:
    """The texts of files here."""
    lines = [line for name in names for line in Path(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [json.loads(line)["text"] for line in lines]


def test_what_comes_out(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    out = made / "out"
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    web = report["sources"]["web"]
    read = lines_of("web1", "web2")
    assert web["documents"] == len(read)
    assert web["documents"] == web["kept_documents"] + sum(cost["documents"] for cost in web["dropped"].values())
    assert web["text_bytes"] == sum(len(text.encode()) for text in read)
    assert report["sources"]["wiki"]["kept_documents"] == 61
    (row,) = open_shards(out / "shards" / "web").rows("web")
    assert row["funnel"]["kept"] == web["kept_documents"]
    assert row["funnel"]["dropped"] == {reason: cost["documents"] for reason, cost in web["dropped"].items()}
    card = source_table([row | {"share": 1.0, "epochs": 1.0}])
    assert f"web: `gpt3 corpus` kept {web['kept_documents']} of {len(read)} documents; dropped: " in card
    specs = read_mixture(out / "mixture.yaml")
    assert [(spec.name, spec.weight) for spec in specs] == [("wiki", 3), ("web", 60)]
    kept = texts_of(Path(specs[1].data[0]))
    assert not set(BAD.values()) & set(kept)
    assert sum("buy cheap shoes" in text for text in kept) < 40 < len(kept)
    good = texts_of(Path(specs[0].data[0]))
    lines = lines_of("good")
    (cut,) = set(good) - set(lines)  # a benchmark's question and 200 characters around it
    assert cut in lines[-1]
    assert len(cut) < len(lines[-1]) - 250
    one = NearDuplicates(NearDuplicateOptions())
    for text in lines:
        one(text)
    assert all(one(text) is None or text not in read for text in kept)
    table = pyarrow.parquet.read_table(out / "duplicates.parquet").to_pylist()
    assert all(row["similarity"] >= 0.699 for row in table)
    copies = {row["kept_document"]: read[row["dropped_document"]] for row in table if row["kept_source"] == "wiki"}
    assert copies.get(0) == lines[0] or report["sources"]["web"]["dropped"]["quality"]
    assert report["quality"]["auc"] > 0.7
    dropped = sorted(path.name for path in (out / "dropped").iterdir())
    assert "braces-above-0.jsonl.zst" in dropped
    raw = zstandard.ZstdDecompressor().stream_reader((out / "dropped/braces-above-0.jsonl.zst").read_bytes()).read()
    assert json.loads(raw)["text"] == BAD["braces>0"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Content-Security-Policy" in page
    weights = np.load(next((out / "work").glob("scores-*/*.npy")))
    assert ((weights >= 0) & (weights <= 1)).all()


def test_again_changes_nothing_and_a_new_threshold_reads_no_text(made: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(made)
    before = sums(made / "out")
    times = {path: path.stat().st_mtime_ns for path in (made / "out/work").rglob("*.parquet")}
    assert cli.main(["corpus", "recipe.yaml", "--out", "out"]) == 0
    assert sums(made / "out") == before
    (made / "stricter.yaml").write_text(RECIPE.replace("alpha: 1", "alpha: 2"), encoding="utf-8")
    assert cli.main(["corpus", "stricter.yaml", "--out", "out"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (made / "out/work").rglob("*.parquet")} == times
    assert cli.main(["corpus", "recipe.yaml", "--out", "out"]) == 0
    after = sums(made / "out")
    assert {name: after[name] for name in before if not name.startswith("work")} == {
        name: sum_ for name, sum_ in before.items() if not name.startswith("work")
    }
    capsys.readouterr()
    assert cli.main(["corpus", "recipe.yaml", "--plan"]) == 0
    assert "web" in capsys.readouterr().out


# on Linux test_corpus_kills.py has this with forks
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(2, marks=[pytest.mark.slow] if sys.platform == "linux" else []),
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_the_same_bytes_for_any_number_of_workers(made: Path, monkeypatch, workers: int) -> None:
    monkeypatch.chdir(made)
    (made / f"by{workers}").mkdir()
    monkeypatch.chdir(made / f"by{workers}")
    for path in made.glob("*.*"):
        os.link(path, path.name)
    command = [sys.executable, "-m", "gpt3", "corpus", "recipe.yaml", "--out", "out", "--workers", str(workers)]
    subprocess.run(command, check=True, capture_output=True)
    mine, theirs = (final(folder) for folder in (Path("out"), made / "out"))
    assert mine == theirs


def final(out: Path) -> dict[str, str]:
    """Sums of what a user sees, but for what names the place of the inputs."""
    return {name: value for name, value in sums(out).items() if not name.startswith("work/") and "manifest" not in name}


@pytest.mark.slow
def test_whole_processes_killed(made: Path, tmp_path: Path) -> None:
    """SIGKILL after a random time, again and again; the end is that of the undisturbed run. More kills: test_corpus_kills.py."""
    for path in made.glob("*.*"):
        os.link(path, tmp_path / path.name)
    command = [sys.executable, "-m", "gpt3", "corpus", "recipe.yaml", "--out", "out", "--workers", "2"]
    draw = random.Random(5)
    for _ in range(5):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(1, 9))
        process.send_signal(signal.SIGKILL) if os.name != "nt" else process.kill()
        process.wait()
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert final(tmp_path / "out") == final(made / "out")
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_source_nearly_wiped_out_stops_the_work(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": text}) + "\n" for text in [GOOD, *(f"short {n}" for n in range(30))]]
    (tmp_path / "web.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "sources: [{name: web, data: web.jsonl}]\nheuristics: gopher\n", encoding="utf-8"
    )
    assert cli.main(["corpus", "recipe.yaml", "--out", "out"]) == 2
    assert "web loses 96.8% of its documents (words<50" in capsys.readouterr().err
    assert cli.main(["corpus", "recipe.yaml", "--out", "out", "--accept-loss"]) == 0
    assert cli.main(["corpus", "recipe.yaml", "--out", "."]) == 2
    assert "holds other files" in capsys.readouterr().err


def test_a_recipe_is_checked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "sources: [{name: A B, data: x}, {data: y}, {name: c, data: z, weight: 0}]\nheuristic: c4\n"
        "near_duplicates: {bands: 0, band: 3}\nquality: {alpha: 0}\nlanguage: {keep: 3}\nvalidation_fraction: 2\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as error:
        read_recipe(path)
    for part in (
        "unknown key 'heuristic' (did you mean heuristics?)", "name 'A B' may hold", "source 2: has no name",
        "weight 0 must be", "unknown key 'band'", "alpha 0 must be", "keep 3 must be a list", "validation_fraction 2",
    ):  # fmt: skip
        assert part.replace("_", "-") in str(error.value).replace("_", "-"), (part, str(error.value))
    for text, message in (
        ("sources: [{name: a, data: x}]\nquality: {}\n", "no source is trusted"),
        ("sources: [{name: a, data: x, trusted: true}]\nquality: {}\n", "all sources are trusted"),
        ("sources: [{name: a, data: x}, {name: a, data: y}]\n", "'a' is there twice"),
        ("- 3\n", "must be a mapping"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_recipe(path)

"""`gpt3 corpus` killed, or without room on the disk, at any moment: the same command ends in the bytes of an undisturbed run."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_server import Server
from test_corpus import sums, write_inputs

from gpt3.tokenizer.train import train_tokenizer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the harness forks, and collects orphans as Linux does")
WORDS = ("corpus", "../recipe.yaml", "--out", "out", "--workers")
ALL = """
sources:
  - {name: wiki, data: "../good.jsonl", weight: 3, trusted: true}
  - {name: web, data: "../web*.jsonl", weight: 60}
language: {keep: [en], at_least: 0.2}
heuristics: fineweb
quality: {alpha: 0.1}
near_duplicates: {at_least: 0.7, verify: exact}
decontaminate: "../tasks.jsonl"
validation_fraction: 0.1
tokenizer: "../own"
"""
STAGES = ("documents", "languages", "figures", "scores", "signatures", "near_duplicates", "shingles", "kept", "shards")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files to read and a recipe of all stages; runs are in folders of it."""
    folder = tmp_path_factory.mktemp("corpus")
    write_inputs(folder)
    train_tokenizer(["the river of the village and that hill have gone"], 270).save_pretrained(folder / "own")
    (folder / "recipe.yaml").write_text(ALL.replace("../", f"{folder.as_posix()}/"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(server: Server, inputs: Path) -> dict[str, str]:
    """What one process makes."""
    (inputs / "whole").mkdir()
    code, said = server.run(inputs / "whole", *WORDS, "1")
    assert code == 0, said
    found = sums(inputs / "whole" / "out")
    assert {name.split("/")[1].split("-")[0] for name in found if name.startswith("work/")} >= {*STAGES[:-1]}
    assert len([name for name in found if name.startswith("work/documents")]) > 5
    return found


@pytest.mark.parametrize("workers", ["2", pytest.param("4", marks=pytest.mark.slow)])
def test_workers_make_the_same_bytes(server: Server, inputs: Path, undisturbed: dict[str, str], workers: str) -> None:
    (inputs / workers).mkdir()
    code, said = server.run(inputs / workers, *WORDS, workers)
    assert code == 0, said
    assert sums(inputs / workers / "out") == undisturbed


def kill_until_done(server: Server, folder: Path, draw: random.Random, kills: int, hit: Counter[str]) -> None:
    """Run with up to `kills` deaths, then to the end."""
    folder.mkdir()
    for _ in range(kills):
        who, event = draw.choice(("driver", "worker")), draw.choice(("kill", "kill", "later"))
        most = {"kill": {"driver": 250, "worker": 40}, "later": {"driver": 3000, "worker": 200}}[event][who]
        workers = "2" if who == "worker" else draw.choice("12")
        code, said = server.run(folder, *WORDS, workers, who=who, event=event, count=draw.randint(1, most))
        if code == 0:  # it ended first
            return
        if who == "driver":
            assert code == -signal.SIGKILL, said
        else:
            assert (code, "a worker process was killed" in said) == (1, True), said
        hit[f"{who} {event}"] += 1
    code, said = server.run(folder, *WORDS, draw.choice("12"))
    assert code == 0, said


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_change_no_byte(server: Server, inputs: Path, undisturbed: dict[str, str], kills: int) -> None:
    draw, hit, number = random.Random(kills), Counter[str](), 0
    while hit.total() < kills:
        folder = inputs / f"killed-{kills}-{number}"
        number += 1
        kill_until_done(server, folder, draw, min(6, kills - hit.total()), hit)
        assert sums(folder / "out") == undisturbed, hit
        shutil.rmtree(folder)
    print(f"\nkills: {dict(hit)} in {number} runs")
    assert kills < 100 or len(hit) == 4


@pytest.mark.parametrize("stride", [250, pytest.param(10, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line(server: Server, inputs: Path, undisturbed: dict[str, str], stride: int) -> None:
    """At every moment of one process and of a worker; then there is room again."""
    for who, workers in (("driver", "1"), ("worker", "2")):
        place, refused = 2, 0
        while True:
            folder = inputs / f"full-{stride}-{who}-{place}"
            folder.mkdir()
            code, said = server.run(folder, *WORDS, workers, who=who, event="full", count=place)
            if code == 0:
                break
            refused += 1
            (line,) = [line for line in said.splitlines() if "gpt3 corpus:" in line]
            assert (code, "No space left on device. Free some space" in line) == (1, True), said
            assert "Traceback" not in said
            code, said = server.run(folder, *WORDS, workers)
            assert code == 0, said
            assert sums(folder / "out") == undisturbed
            shutil.rmtree(folder)
            place += stride if who == "driver" else max(1, stride // 6)
        assert refused > (who == "driver")  # how many changes a worker makes depends on which parts it got first

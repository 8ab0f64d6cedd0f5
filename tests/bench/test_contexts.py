"""`gpt3 bench contexts`: caches have the size their shapes say, and the figure shows every point."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from gpt3.bench.tradeoffs import (
    MOST_STEPS,
    BenchContextsOptions,
    bench_contexts,
    contexts_table,
    run_contexts,
)
from gpt3.errors import InputError
from gpt3.inference.engine import ROLLBACK
from gpt3.ladder.presets import preset


def test_half_of_the_layers_stop_growing(tmp_path: Path, capsys: pytest.CaptureFixture[str], undocumented) -> None:
    options = BenchContextsOptions(
        model="demo", contexts=[256, 64], steps=2, rounds=2, threads=1, out=str(tmp_path / "curves.svg")
    )
    points = bench_contexts(options)
    assert [(point["kind"], point["context"]) for point in points] == [
        ("banded", 64), ("dense", 64), ("banded", 256), ("dense", 256),
    ]  # fmt: skip
    shape = preset("demo")
    layer = 2 * 4 * shape.d_model  # bytes of a token's key and value
    held = {(point["kind"], point["context"]): point["cache_bytes"] for point in points}
    assert held["dense", 256] == 4 * layer * 256
    assert held["banded", 256] == 2 * layer * 256 + 2 * layer * (shape.window + ROLLBACK)
    assert held["banded", 64] == held["dense", 64]  # shorter than window and rollback: as much as a dense layer
    assert all(0 < point["fastest"] <= point["slowest"] for point in points)
    assert undocumented(points[0]) == []
    assert len(contexts_table(points).splitlines()) == 4
    run_contexts(options)
    drawn = ElementTree.parse(tmp_path / "curves.svg").getroot()
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}circle")) == 8
    assert "banded" in capsys.readouterr().out


def test_a_cache_can_be_truncated_by_all_timed_tokens() -> None:
    assert MOST_STEPS == ROLLBACK


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"model": "18M"}, "18M"),
        ({"steps": 65}, "--steps 65 must be a whole number of at least 1 and at most 64"),
        ({"contexts": [16]}, "more than --steps 16"),
        ({"weights": "fp8"}, "fp8"),
        ({"rounds": 0}, "--rounds 0"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], needle: str) -> None:
    with pytest.raises(InputError, match=needle):
        BenchContextsOptions(**options)


def test_another_file_is_not_drawn_over(tmp_path) -> None:
    (tmp_path / "notes.svg").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.svg exists, and gpt3 did not write it"):
        run_contexts(BenchContextsOptions(out=str(tmp_path / "notes.svg")))
    assert (tmp_path / "notes.svg").read_text() == "mine"

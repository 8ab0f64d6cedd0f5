"""What docs/machine.md says to type works as written."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

from gpt3.cli.doctor import DoctorOptions
from gpt3.cli.main import main
from gpt3.cli.runs import RemoveOptions, RunsOptions

PAGE = (Path(__file__).parents[1] / "docs" / "machine.md").read_text(encoding="utf-8")


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "gpt3.training.distributed.gemm_flops", lambda *arguments: 1e11
    )  # tests/test_doctor.py measures
    Path("other").mkdir()
    for name in ("demo", "demo-2"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens": 8, "loss": 5.0}) + "\n")
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.M | re.S):
        for line in block.splitlines():
            assert main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
    assert not list(Path("runs").iterdir())


def test_every_option_is_on_the_page():
    for options in (DoctorOptions, RunsOptions, RemoveOptions):
        for field in dataclasses.fields(options):
            if field.name != "names":  # typed without its name
                assert f"--{field.name.replace('_', '-')}" in PAGE

"""docs/scaling-out.md: its tables are the command's, its commands are ones the shell and the command line take."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gpt3.cli import main as cli
from gpt3.ladder.cluster import make_cluster, plan_rows
from gpt3.ladder.presets import PRESETS, three_digits

ROOT = Path(__file__).parents[2]
CLUSTERS = [(8, "80"), (64, "80"), (1024, "80"), (8, "141")]


def page() -> str:
    return (ROOT / "docs" / "scaling-out.md").read_text(encoding="utf-8")


def summary() -> list[str]:
    """The lines of the page's table of four clusters."""
    plans = [plan_rows(make_cluster(gpus, None, memory, None, 0.4, "auto", "fsdp")) for gpus, memory in CLUSTERS]
    lines = []
    for index, name in enumerate(PRESETS):
        cells = []
        for plan in plans:
            kinds = dict(zip(("", "s", "c"), plan[3 * index : 3 * index + 3], strict=True))
            mark = next((mark for mark, row in kinds.items() if row["fits"]), "c")
            row = kinds[mark]
            if not row["fits"]:
                remedy = row["remedy"].replace(" with gradient checkpointing", ", c")
                cells.append("no; " + remedy.replace(" with selective checkpointing", ", s"))
                continue
            mark += "" if row["batch_tokens"] == row["paper_batch_tokens"] else "*"
            cells.append(
                f"{row['micro_batch']} × {row['accumulation']}{mark} on {row['gpus']:,}: "
                f"{row['memory']['total'] / 1e9:.0f} GB, {three_digits(row['days_300b'])} d"
            )
        if PRESETS[name].paper_name:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def test_the_tables_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    (command, shown) = re.findall(r"```sh\n(gpt3 ladder [^\n]*)\n```\n\n```text\n(.*?)```", page(), re.DOTALL)[0]
    assert cli.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == shown
    assert "\n".join(summary()) in page()


def test_every_ladder_command_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"gpt3 ladder (--gpus \d[^`\n]*)", page())
    assert len(commands) >= 3
    for command in commands:
        assert cli.main(["ladder", *command.split()]) == 0, capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_is_bash() -> None:
    for name in ("slurm", "corpus"):
        subprocess.run(["bash", "-n", str(ROOT / "examples" / f"{name}.sbatch")], check=True)

"""What docs/generate.md and docs/engine.md say to type works as written."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt3.inference.options import GenerateOptions
from gpt3.options import documentation, flag, option_of

PAGE = Path(__file__).parents[2] / "docs" / "generate.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_python_example(home, capfd):
    constrained, code = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    out = capfd.readouterr().out
    assert len(re.findall(r"(length|stop) \d+ tokens/s", out)) == 2
    pytest.importorskip("llguidance")
    names: dict = {}
    exec(compile(constrained, str(PAGE), "exec"), names)
    assert names["made"].text.startswith("{")
    assert capfd.readouterr().out.count("\n") <= 3


def test_the_engines_example(home):
    text = (PAGE.parent / "engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    names: dict = {}
    exec(compile(code, "engine.md", "exec"), names)
    assert names["logits"].shape == (3, names["engine"].vocabulary)
    assert names["cache"].lengths == [len(names["ids"]) + 1, len(names["ids"])]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are written for a shell")
def test_the_commands(home):
    (schema,) = blocks("json")
    (home / "ship.json").write_text(schema, encoding="utf-8")
    commands = "\n".join(line for line in "".join(blocks("sh")).splitlines() if not line.startswith("pip "))
    (home / "prompt.txt").write_text("The sea was\n", encoding="utf-8")
    (home / "prompts.jsonl").write_text('{"prompt": "The sea was", "id": "a1"}\n', encoding="utf-8")
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, encoding="utf-8", input="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- sample 3 of 3 ---") == 1
    assert re.search(r"^( fast| slow)\n\d{4}-\d\d-\d\d\n\{", done.stdout, flags=re.M)
    assert (
        (home / "samples.jsonl")
        .read_text(encoding="utf-8")
        .startswith('{"index": 0, "prompt_index": 0, "prompt": "The sea was"')
    )
    assert (home / "out.jsonl").read_text(encoding="utf-8").startswith('{"id": "a1", "index": 0')


def option_rows(options: type) -> dict[str, str]:
    """The row of each option's table: its flag, range, default, and help, as the dataclass states them."""
    rows = {}
    for field in dataclasses.fields(options):
        default = field.default if field.default is not dataclasses.MISSING else None
        shown = "" if default is None or default is False else f"{default:g}" if isinstance(default, float) else default
        values = (flag(field.name), str(option_of(field)), shown, documentation(options)[field.name])
        rows[field.name] = f"| `{values[0]}` | {values[1]} | {values[2]} | {values[3]} |"
    return rows


def missing_rows(options: type) -> list[str]:
    """Rows that docs/generate.md should have and does not."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [row for row in option_rows(options).values() if row not in lines]


def test_every_option_has_its_row_on_the_page():
    assert "\n".join(missing_rows(GenerateOptions)) == ""

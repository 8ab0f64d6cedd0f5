"""What docs/generate.md and docs/engine.md say to type works as written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "generate.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_python_example(home, capfd):
    (code,) = blocks("python")
    exec(compile(code, str(PAGE), "exec"), {})
    out = capfd.readouterr().out
    assert len(re.findall(r"(length|stop) \d+ tokens/s", out)) == 2


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
    (commands,) = blocks("sh")
    (home / "prompt.txt").write_text("The sea was\n", encoding="utf-8")
    (home / "prompts.jsonl").write_text('{"prompt": "The sea was", "id": "a1"}\n', encoding="utf-8")
    script = f'set -e\ngpt3() {{ "{sys.executable}" -m gpt3 "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, encoding="utf-8", input="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- sample 3 of 3 ---") == 1
    assert (
        (home / "samples.jsonl")
        .read_text(encoding="utf-8")
        .startswith('{"index": 0, "prompt_index": 0, "prompt": "The sea was"')
    )
    assert (home / "out.jsonl").read_text(encoding="utf-8").startswith('{"id": "a1", "index": 0')


def test_every_option_is_on_the_page():
    import dataclasses

    from gpt3.inference.options import GenerateOptions

    page = PAGE.read_text(encoding="utf-8")
    names = {field.name for field in dataclasses.fields(GenerateOptions)}
    missing = {name for name in names if f"--{name.replace('_', '-')}" not in page}
    assert missing == set()

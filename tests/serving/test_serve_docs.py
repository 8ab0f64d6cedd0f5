"""What docs/serve.md says to type works as written."""

import io
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from live_server import save_model, serving, wait_for

from gpt3.cli.parsing import parse
from gpt3.serving.options import ServeOptions

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def server(language_model):
    with serving(language_model, name=["demo"]) as live:
        yield live


def test_the_commands_are_understood(monkeypatch) -> None:
    """They are run by test_server.py; a server of the page's own port may not be free here."""
    monkeypatch.setenv("GPT3_API_KEY", "secret")
    lines = [line for block in blocks("sh") for line in block.splitlines() if "gpt3 serve" in line]
    assert len(lines) == 4
    for line in lines:
        words = [word for word in shlex.split(line) if "=" not in word]
        assert words[:2] == ["gpt3", "serve"]
        parse(ServeOptions, words[2:], command="serve", positional="model")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server, tokenizer, tmp_path, monkeypatch) -> None:
    def answer(command: str, live) -> str:
        words = shlex.split(command.replace("http://127.0.0.1:8000", live.url).replace("\\\n", " "))
        done = subprocess.run([*words, "-s", "--noproxy", "*"], capture_output=True, text=True, check=True)
        return done.stdout

    complete, load = [block for block in blocks("sh") if block.startswith("curl")]
    assert '"object":"text_completion"' in answer(complete, server)
    save_model(tokenizer, tmp_path / "runs/demo/model")
    monkeypatch.chdir(tmp_path)
    with serving({}, model=[]) as live:
        assert answer(load, live) == '{"id":"demo","state":"loading"}'
        wait_for(lambda: live.ask("/health")[0] == 200)


def test_the_openai_client(server) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("llguidance")
    shown = io.StringIO()
    with redirect_stdout(shown):
        for code in blocks("python"):
            exec(code.replace("http://127.0.0.1:8000", server.url), {})
    assert shown.getvalue().strip()
    assert re.search(r"\d\n$", shown.getvalue())


def test_every_field_and_option_is_named() -> None:
    from gpt3.serving.schema import CompletionBody

    for field in CompletionBody.model_fields:
        assert f"`{field}" in PAGE or field in ("model",), field
    for option in (
        "slots",
        "queue",
        "prompt-tokens",
        "timeout",
        "max-samples",
        "max-body",
        "grace",
        "host",
        "unprotected",
    ):
        assert f"--{option}" in PAGE, option

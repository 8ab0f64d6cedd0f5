"""What is typed in `gpt3 chat`: where its history is kept, and Ctrl-C at the prompt."""

from __future__ import annotations

import contextlib

import pytest

from gpt3.cli import chat as chat_command


def test_the_history_is_state_and_its_loss_is_no_error(monkeypatch, tmp_path) -> None:
    readline = pytest.importorskip("readline")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with chat_command.line_editing():
        readline.add_history("Why is the sea salt?")
    kept = tmp_path / "state" / "gpt3" / "chat_history"
    assert "sea" in kept.read_text()
    # a file: no folder can be made there, as in a home that is read-only
    monkeypatch.setenv("XDG_STATE_HOME", str(kept))
    with chat_command.line_editing():
        pass
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chat_command.history_file() == tmp_path / ".local" / "state" / "gpt3" / "chat_history"


def test_ctrl_c_at_the_prompt_drops_the_line_and_not_the_conversation(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(chat_command, "line_editing", contextlib.nullcontext)
    typed = iter(["Why?", KeyboardInterrupt, " ", "/quit", EOFError])

    def answer(prompt: str) -> str:
        word = next(typed)
        if isinstance(word, str):
            return word
        raise word

    monkeypatch.setattr("builtins.input", answer)
    assert list(chat_command.lines(terminal=True)) == ["Why?", "/quit"]
    assert "Ctrl-D or /quit ends the conversation" in capsys.readouterr().err

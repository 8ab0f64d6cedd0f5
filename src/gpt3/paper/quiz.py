"""The quiz of section 3.9.4: a page that shows articles, human or generated, and keeps a reader's answers; and those answers.

The page is one file without network. Answers stay in the browser until the reader downloads them, as ``answers-….json``; in the
experiment's folder they are read and drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.tables import counted
from gpt3.work_folder import check_file

ASSETS = Path(__file__).parent / "assets"
MARK = b'<meta name="generator" content="gpt3 paper quiz">'
"""What tells a quiz of ours from other files."""
PATTERN = "answers*.json"
FORMAT = "gpt3 paper 3.9.4"
"""What an answers' file says it is."""


def content(titles: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page shows, in JSON. Another model does not make it another quiz: earlier answers about the others stay valid.

    Args:
        titles: each with ``id``, ``title``, ``subtitle`` and the human ``article``.
        models: each with ``name``, ``parameters`` (None: the control) and ``articles``, a text by id.
    """
    marked = [dict(model) | {"digest": _digest(model["articles"])} for model in models]
    return {"format": FORMAT, "quiz": _digest(titles), "titles": list(titles), "models": marked}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def check(path: Path) -> None:
    """Refuse to replace a file that is no quiz.

    Raises:
        InputError: there is one.
    """
    check_file("--out", path, MARK, overwrite=False)


def write(path: Path, quiz: Mapping[str, Any]) -> None:
    """The page."""
    data = json.dumps(quiz, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\!--")
    page = (ASSETS / "quiz.html").read_text(encoding="utf-8")
    script = (ASSETS / "quiz.js").read_text(encoding="utf-8")
    write_text(path, page.replace("/*DATA*/", f"const QUIZ = {data};").replace("/*SCRIPT*/", script))


def read(folder: Path, quiz: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sessions of all files of answers in a folder, each once; those about articles that the quiz no longer has are left out.

    Raises:
        InputError: a file that is none of this quiz's.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(PATTERN)):
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
            if answers["format"] != FORMAT:
                raise ValueError
            sessions = {str(session["id"]): _session(session) for session in answers["sessions"]}
            about = answers["quiz"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path} has no answers of a quiz. Download them from the quiz's page again.") from None
        if about != quiz["quiz"]:
            raise InputError(f"{path} has answers to a quiz with other titles. Move it to another folder.")
        found |= sessions
    present = {(model["name"], model["digest"]) for model in quiz["models"]}
    kept = [session for session in found.values() if (session["model"], session["articles"]) in present]
    if len(kept) < len(found):
        say(f"  {counted(len(found) - len(kept), 'session')} about other models or articles left out")
    return kept


def _session(session: Mapping[str, Any]) -> dict[str, Any]:
    """A session as it is kept.

    Raises:
        ValueError: an answer that the scale does not have.
        KeyError: something is missing.
    """
    answers = [{key: one[key] for key in ("title", "machine", "answer", "seconds")} for one in session["answers"]]
    if any(one["answer"] not in range(5) or not isinstance(one["machine"], bool) for one in answers):
        raise ValueError
    return {"id": str(session["id"]), **{key: str(session[key]) for key in ("model", "articles")}, "answers": answers}

"""The HTML page of scored texts: one file, nothing loaded from elsewhere; hover or arrow keys show each token's figures."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.inference.score_view import COLUMNS, LEGEND, figures, printable, shade, visible
from gpt3.inference.text_scores import Summary, TokenScore
from gpt3.report.page import embedded

MOST_TOKENS = 50_000
"""Tokens drawn on a page, all texts together: about 10 MB. The figures tell of all."""


@dataclass
class Section:
    """A text on the page."""

    name: str
    size: int
    """Tokens it has."""
    spans: list[str] = field(default_factory=list)
    """HTML of those drawn."""
    rows: list[list[Any]] = field(default_factory=list)
    """Their figures: id, start, end, logprob, rank, entropy, ids and log-probabilities of the likeliest."""
    summary: Summary | None = None


class Page:
    """Takes texts token by token, and writes them all into one file.

    Args:
        model: where it was found.
        context, stride: the windows that were read.
    """

    def __init__(self, model: str, context: int, stride: int) -> None:
        self._about = f"{printable(model)}, context {context:,}, stride {stride:,}"
        self._sections: list[Section] = []
        self._names: dict[int, str] = {}
        self._left = MOST_TOKENS

    def begin(self, name: str, size: int) -> Callable[[list[TokenScore]], None]:
        """Begin a text of `size` tokens; returns what takes them."""
        self._sections.append(Section(printable(name), size))
        return self._take

    def end(self, summary: Summary) -> None:
        """The text is complete."""
        self._sections[-1].summary = summary

    def _take(self, tokens: list[TokenScore]) -> None:
        section = self._sections[-1]
        for token in tokens[: self._left]:
            section.spans.append(span(token))
            section.rows.append(
                [
                    token.id,
                    token.start,
                    token.end,
                    round(token.logprob, 4),
                    token.rank,
                    round(token.entropy, 4),
                    [each.id for each in token.top],
                    [round(each.logprob, 4) for each in token.top],
                ]
            )
            self._names.update((each.id, visible(each.text)) for each in token.top)
        self._left -= min(self._left, len(tokens))

    def render(self) -> str:
        """The file. Its content security policy lets nothing run or load but the script and the style it came with."""
        assets = resources.files("gpt3.inference") / "assets"
        style, script, page = (
            (assets / name).read_text(encoding="utf-8") for name in ("score.css", "score.js", "score.html")
        )
        names = [section.name for section in self._sections]
        own = f"style-src {_hash(style)}; script-src {_hash(script)}"
        parts = {
            "TITLE": html.escape("gpt3 score · " + " · ".join(names[:3]) + (" · …" if len(names) > 3 else "")),
            "POLICY": f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'",
            "STYLE": style,
            "SCRIPT": script,
            "ABOUT": html.escape(self._about),
            "TABLE": self._table(),
            "LEGEND": "".join(f'<li><span class="t s{i}">{label}</span></li>' for i, label in enumerate(LEGEND)),
            "TEXTS": "".join(self._text(section) for section in self._sections),
            "DATA": embedded({"texts": [section.rows for section in self._sections], "names": self._names}),
        }
        return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], page)

    def write(self, path: Path) -> None:
        """Replace the file at `path`, whole or not at all."""
        write_text(path, self.render())

    def _table(self) -> str:
        rows = [(section.name, section.summary) for section in self._sections if section.summary is not None]
        if len(rows) > 1:
            rows.append(("total", sum((summary for _, summary in rows), Summary())))
        head = "".join(f'<th scope="col">{column}</th>' for column in COLUMNS)
        body = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th>'
            + "".join(f"<td>{cell}</td>" for cell in figures(summary))
            + "</tr>"
            for name, summary in rows
        )
        return f'<thead><tr><th scope="col">text</th>{head}</tr></thead><tbody>{body}</tbody>'

    def _text(self, section: Section) -> str:
        name, drawn = html.escape(section.name), len(section.spans)
        rest = (
            f'<p class="soft">The first {drawn:,} of {section.size:,} tokens are drawn.</p>'
            if drawn < section.size
            else ""
        )
        body = "".join(section.spans)
        return (
            f'<section><h2>{name}</h2><div class="text" role="group" aria-label="{name}">{body}</div>{rest}</section>'
        )


def span(token: TokenScore) -> str:
    """A token as HTML. Marks for line ends and parts of characters come from the style, so that a copy is the text."""
    text = html.escape(visible(token.text)).replace("\n", '<i class="n"></i>\n') or '<i class="p"></i>'
    return f'<span class="t s{shade(math.exp(token.logprob))}">{text}</span>'


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"

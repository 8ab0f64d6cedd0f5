"""How scored texts are shown: colored by probability in a terminal or on an HTML page; figures as a table."""

from __future__ import annotations

import html
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import IO, Any, Literal

from rich.console import Console
from rich.text import Text

from gpt3.inference.sampling import Token
from gpt3.inference.scoring import TextScore, TokenScore
from gpt3.report.page import fill_page
from gpt3.tables import aligned

SHADES = (0.5, 0.2, 0.05, 0.01, 0.001, 0.0)
"""Lowest probability of each shade, from tokens that were expected to those nobody expects."""
LEGEND = ("50% and more", "20 to 50%", "5 to 20%", "1 to 5%", "0.1 to 1%", "less")
BACKGROUNDS = ("#f7f7f7", "#fdf0c8", "#fbd58a", "#f8ac6b", "#ec7a5f", "#b3263f")
"""One hue family growing darker, so that it reads without color vision."""
INKS = ("#171a21",) * 5 + ("#ffffff",)
PARTIAL = "·"
"""Shown for a token that ends within a character; the token that completes it shows the character."""
MOST_TOKENS = 50_000
"""Tokens drawn on a page, of all texts together: about 10 MB. The figures are those of all tokens."""
COLUMNS = ("tokens", "bytes", "characters", "loss", "perplexity", "bits/byte", "bits/token")
PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    # marks that turn the direction of all text after them
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}


def shade(token: TokenScore | Token) -> int:
    """Index in SHADES; 0 is the likeliest."""
    probability = math.exp(-math.inf if token.logprob is None else token.logprob)
    return next(index for index, least in enumerate(SHADES) if probability >= least)


def visible(text: str) -> str:
    """`text` with control characters as pictures (U+2400 and up): they could move the cursor or end a page."""
    return text.translate(PICTURES)


def printable(name: str) -> str:
    """A file's name on one line and in characters that every stream takes."""
    return visible(name).replace("\n", "␊").encode("utf-8", "replace").decode()


def colored(tokens: Sequence[TokenScore | Token]) -> Text:
    """Tokens as text for a terminal, each on the shade of its probability."""
    text = Text(end="")
    for token in tokens:
        style = f"{INKS[shade(token)]} on {BACKGROUNDS[shade(token)]}"
        lines = (visible(token.text) or PARTIAL).split("\n")
        for number, line in enumerate(lines):
            if number:
                text.append("↵", style)  # a line's end has no background of its own
                text.append("\n")
            text.append(line, style)
    return text


def legend() -> Text:
    """What the shades mean."""
    text = Text("probability: ", end="")
    for index, label in enumerate(LEGEND):
        text.append(f" {label} ", f"{INKS[index]} on {BACKGROUNDS[index]}")
    return text


def terminal(file: IO[str] | None = None) -> Console:
    """Standard output, or another stream, for colored texts, below a legend.

    With --color always, colors go into files and pagers, too; the terminal breaks the lines.
    """
    file = sys.stdout if file is None else file
    color_system: Literal["auto", "truecolor"] = "auto" if file.isatty() else "truecolor"
    plain: Any = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
    console = Console(file=file, force_terminal=True, no_color=False, color_system=color_system, **plain)
    console.print(legend())
    console.print()
    return console


def tell(tokens: Sequence[Token]) -> None:
    """Chosen tokens with their probabilities on standard error: colored in a terminal, else one per line."""
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        terminal(sys.stderr).print(colored(tokens))
        return
    known = [(token.text, token.logprob) for token in tokens if token.logprob is not None]
    rows = [(f"{math.exp(value):.1%}", json.dumps(text, ensure_ascii=False)) for text, value in known]
    print("\n".join(aligned(rows, left=(1,))), file=sys.stderr)


def with_total(rows: Sequence[tuple[str, TextScore]]) -> list[tuple[str, TextScore]]:
    """The rows and, if there are several, their total."""
    return [*rows, ("total", sum((score for _, score in rows), TextScore()))] if len(rows) > 1 else [*rows]


def table(rows: Sequence[tuple[str, TextScore]]) -> str:
    """One line per text, and one for their total if there are several."""
    lines = [(printable(name), *figures(score)) for name, score in with_total(rows)]
    return "\n".join(aligned([("", *COLUMNS), *lines]))


def figures(score: TextScore) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    return (
        f"{score.count:,}",
        f"{score.bytes:,}",
        f"{score.characters:,}",
        f"{score.loss:.4f}",
        f"{score.perplexity:,.2f}" if score.perplexity < 1e9 else f"{score.perplexity:.2e}",
        f"{score.bits_per_byte:.4f}",
        f"{score.bits_per_token:.4f}",
    )


def page(about: str, texts: Sequence[tuple[str, TextScore]]) -> str:
    """The HTML page of scored texts: one file that loads nothing; hover or arrow keys show each token's figures.

    Args:
        about: the model and how it read the texts.
        texts: name and score of each, with the tokens to draw.
    """
    names = [printable(name) for name, _ in texts]
    head = "".join(f'<th scope="col">{column}</th>' for column in ("text", *COLUMNS))
    body = "".join(
        f'<tr><th scope="row">{html.escape(printable(name))}</th>'
        + "".join(f"<td>{cell}</td>" for cell in figures(score))
        + "</tr>"
        for name, score in with_total(texts)
    )
    likely = {each.id: visible(each.text) for _, score in texts for token in score.tokens for each in token.top}
    return fill_page(
        "gpt3.inference",
        "score",
        {"texts": [[_row(token) for token in score.tokens] for _, score in texts], "names": likely},
        TITLE=html.escape("gpt3 score · " + " · ".join(names[:3]) + (" · …" if len(names) > 3 else "")),
        ABOUT=html.escape(printable(about)),
        TABLE=f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>",
        LEGEND="".join(f'<li><span class="t s{i}">{label}</span></li>' for i, label in enumerate(LEGEND)),
        TEXTS="".join(_section(html.escape(name), score) for name, (_, score) in zip(names, texts, strict=True)),
    )


def _row(token: TokenScore) -> list[object]:
    tops = [each.id for each in token.top], [round(each.logprob, 4) for each in token.top]
    return [token.id, token.start, token.end, round(token.logprob, 4), token.rank, round(token.entropy, 4), *tops]


def _section(name: str, score: TextScore) -> str:
    drawn = len(score.tokens)
    rest = (
        f'<p class="soft">The first {drawn:,} of {score.count:,} tokens are drawn.</p>' if drawn < score.count else ""
    )
    body = "".join(map(span, score.tokens))
    return f'<section><h2>{name}</h2><div class="text" role="group" aria-label="{name}">{body}</div>{rest}</section>'


def span(token: TokenScore) -> str:
    """A token as HTML. Marks for line ends and parts of characters come from the style, so that a copy is the text."""
    text = html.escape(visible(token.text)).replace("\n", '<i class="n"></i>\n') or '<i class="p"></i>'
    return f'<span class="t s{shade(token)}">{text}</span>'

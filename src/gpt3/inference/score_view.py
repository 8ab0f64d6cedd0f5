"""How scored texts look: shades by probability, the coloured view in a terminal, the table of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt3.inference.text_scores import Summary, TokenScore

if TYPE_CHECKING:
    from rich.text import Text

SHADES = (0.5, 0.2, 0.05, 0.01, 0.001, 0.0)
"""Least probability of each shade, from tokens that were expected to those nobody expects."""
LEGEND = ("50% and more", "20 to 50%", "5 to 20%", "1 to 5%", "0.1 to 1%", "less")
BACKGROUNDS = ("#f7f7f7", "#fdf0c8", "#fbd58a", "#f8ac6b", "#ec7a5f", "#b3263f")
"""One hue family growing darker, so that it reads without colour vision."""
INKS = ("#171a21",) * 5 + ("#ffffff",)
PARTIAL = "·"
"""Stands for a token that ends within a character; the token that completes it shows the character."""


def shade(probability: float) -> int:
    """Index in SHADES; 0 is the likeliest."""
    return next(index for index, least in enumerate(SHADES) if probability >= least)


def visible(text: str) -> str:
    """`text` with control characters as pictures (U+2400 and up): they could move the cursor or end a page."""
    return text.translate(PICTURES)


PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    # marks that turn the direction of all text after them
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd"),
}


def colored(tokens: Sequence[TokenScore]) -> Text:
    """Tokens as text for a terminal, each on the shade of its probability."""
    from rich.text import Text

    text = Text(end="")
    for token in tokens:
        index = shade(math.exp(token.logprob))
        style = f"{INKS[index]} on {BACKGROUNDS[index]}"
        lines = (visible(token.text) or PARTIAL).split("\n")
        for number, line in enumerate(lines):
            if number:
                text.append("↵", style)  # a line's end has no background of its own
                text.append("\n")
            text.append(line, style)
    return text


def legend() -> Text:
    """What the shades mean."""
    from rich.text import Text

    text = Text("probability: ", end="")
    for index, label in enumerate(LEGEND):
        text.append(f" {label} ", f"{INKS[index]} on {BACKGROUNDS[index]}")
    return text


COLUMNS = ("tokens", "bytes", "characters", "loss", "perplexity", "bits/byte", "bits/token")


def table(rows: Sequence[tuple[str, Summary]]) -> str:
    """A line a text and, of several, a line of their total."""
    if len(rows) > 1:
        rows = [*rows, ("total", sum((summary for _, summary in rows), Summary()))]
    lines = [("", *COLUMNS)] + [(printable(name), *figures(summary)) for name, summary in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def figures(summary: Summary) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    return (
        f"{summary.tokens:,}",
        f"{summary.bytes:,}",
        f"{summary.characters:,}",
        f"{summary.loss:.4f}",
        f"{summary.perplexity:,.2f}" if summary.perplexity < 1e9 else f"{summary.perplexity:.2e}",
        f"{summary.bits_per_byte:.4f}",
        f"{summary.bits_per_token:.4f}",
    )


def printable(name: str) -> str:
    """A file's name on one line and in characters that every stream takes."""
    return visible(name).replace("\n", "␊").encode("utf-8", "replace").decode()

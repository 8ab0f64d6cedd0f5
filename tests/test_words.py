"""What people read is in the field's words: no private phrases in code, docs, help, page; docs fit 100 columns."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = [
    r"go(es|ne)? on (from|with|where)|going on (from|with)|goes on there|goes on, \w",
    r"\bsittings?\b|\bhow-manieth\b|\bcomplaint",
    r"\b(so|as) many (ranks|steps|tokens|GPUs|processes|samples|texts|layers|times|words)\b",
    r"at most so (often|long)|\bso long as\b",
    r"is not to be had|cannot be listened at|is chosen by itself|is not looked at|pass(ed|es) over|\bset aside\b",
    r"\bmend(s|ed|ing)?\b|\bstands? (in|beside|there|here|behind)\b|\bstood (in|beside)\b",
    r"with a number behind|a number behind it",
    r"whom a pronoun|solved examples?|side by side|\bone a line\b|an output channel|nats a token|tokens? a parameter",
    r"(object|prompt|message|name|text|sample|question|column|file|row|number|value)s? a line\b",
    r"keeps? end-of-text away|once more to stop at once|is prepared already|\bwhat is asked for\b|\bwhat was asked for\b",
    r"a (step|token|run|second|process|model|core|rank|task) (of|at) most|, at most so",
    r"\bgoes by\b|\bgives back\b|\bthe how-manieth\b|\bfor ever\b|\bin all, and\b|is gone on with|of one's own\b",
    r"tells? (which|how|what|whether)\b|\bis told\b|\bare told\b|\btold in one line",
    r"\bbeside (the|it|them|a|each|every|nanoGPT|transformers|lm-eval|litGPT|llama|other work|some|one another)",
    r"\bby turns\b|\bby heart\b|\bbegun again\b|\bway come so far\b|\bbusy neighbour|\bbeside training\b|\bso asked\b",
    r"\b(memory|CPU|GPU)'s roof\b|\btext rehearsed\b|\baims? (is|was|at \w+ texts?)\b|\bwhat \w+ \w+ taught\b",
]
PATTERN = re.compile("|".join(BANNED), re.IGNORECASE)
FILES = sorted(
    path
    for pattern in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "examples/**/*.*", "src/gpt3/**/*.py",
                    "src/gpt3/**/*.js", "src/gpt3/**/*.html", "src/gpt3/**/*.css", "benchmarks/**/*.py")
    for path in ROOT.glob(pattern)
)  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_phrases(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [f"{number}: {match[0]!r} in {line.strip()}" for number, line in enumerate(text.splitlines(), 1)
             if (match := PATTERN.search(line))]  # fmt: skip
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".md"], ids=lambda path: path.name)
def test_docs_fit_100_columns(path: Path) -> None:
    lines = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|") and "](" not in line] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_a_page_links_the_pages_it_names(path: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"(?<![\w/([])(?:docs/)?[\w-]+\.md(?![\w\])])|(?<!\]\()\(docs/[\w-]+\.md", prose) == []

"""The documentation as a searchable site: ``sphinx-build -W -c docs . build/docs``, then open build/docs/index.html.

README is its first page, and README's table of pages its navigation. The pages are plain Markdown, as GitHub shows them; what
only the site has is added here: the navigation and, on the Python page, the signatures and options from the docstrings.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from gpt3 import __version__ as release
from gpt3.options import documentation

project, author, copyright = "gpt3", "The gpt3 authors", "The gpt3 authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md"]
exclude_patterns = [".*", "benchmarks", "build", "examples", "runs", "src", "tests", "venv"]
myst_heading_anchors = 3
highlight_language = "text"
add_module_names = False
autodoc_typehints = "none"
default_role = "code"
smartquotes = False  # --data stays as it is typed
html_theme = "furo"
html_title = f"gpt3 {release}"
html_copy_source = html_show_sphinx = False
templates_path: list[str] = []

CALLS = {
    "train": "gpt3.training.options:TrainOptions",
    "finetune": "gpt3.finetuning.options:FinetuneOptions",
    "evaluate": "gpt3.evaluation.options:EvalOptions",
    "serve": "gpt3.serving.options:ServeOptions",
}
"""The commands as functions, and the dataclasses of their options."""
PYTHON = ("gpt3.load", "gpt3.generate")
MODEL = "gpt3.inference.language_model.LanguageModel"


def navigation(readme: str) -> str:
    """README's table of pages as MyST's toctrees, one per group."""
    groups: list[tuple[str, list[str]]] = []
    for row in re.findall(r"^\|(?: \*\*(\w+)\*\*)? \| (\[.*?) \|", readme, re.M):
        if row[0]:
            groups.append((row[0], []))
        groups[-1][1].extend(re.findall(r"\]\((docs/[^)]+)\)", row[1]))
    groups[-1][1].extend(["CONTRIBUTING.md", "CHANGELOG.md"])
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n" for title, pages in groups
    )


def reference() -> str:
    """The functions with their options, from the docstrings."""
    parts = []
    for name, place in CALLS.items():
        module, _, options = place.partition(":")
        parts.append(f"### gpt3.{name}\n\n```{{eval-rst}}\n.. autofunction:: gpt3.{name}(**options)\n```\n")
        parts.append(option_table(getattr(importlib.import_module(module), options)))
    for place in PYTHON:
        parts.append(f"### {place}\n\n```{{eval-rst}}\n.. autofunction:: {place}\n```\n")
    parts.append(f"### LanguageModel\n\n```{{eval-rst}}\n.. autoclass:: {MODEL}\n   :members:\n```\n")
    return "\n## Reference\n\n" + "\n".join(parts)


def option_table(options: Any) -> str:
    """Name, type, default and meaning of each option."""
    texts = documentation(options)
    rows = ["| option | type; default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(options):
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
        kind = str(field.type).replace("|", "or")
        rows.append(f"| `{field.name}` | {kind}; `{default!r}` | {' '.join(texts[field.name].split())} |")
    return "\n".join(rows) + "\n"


def complete(app: Any, page: str, source: list[str]) -> None:
    """Add to a page what only the site has."""
    if page == root_doc:
        source[0] += navigation(source[0])
    elif page == "docs/python":
        source[0] += reference()


def first_page(app: Any, error: Exception | None) -> None:
    """An index.html that opens the first page."""
    if error is None and app.builder.name == "html":
        refresh = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">'
        line = f'<!doctype html><meta charset="utf-8"><title>gpt3</title>{refresh}\n'
        Path(app.outdir, "index.html").write_text(line, encoding="utf-8")


def setup(app: Any) -> None:
    """Register the above with Sphinx."""
    app.connect("source-read", complete)
    app.connect("build-finished", first_page)

"""The page: what it shows of each run, as JSON, put with its style and its script into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from gpt3.durable import write_text
from gpt3.energy import amount
from gpt3.progress import clock
from gpt3.report.charts import chart_groups, series_of
from gpt3.report.run_folder import Run, number, read_run, unique_names

PAGE_MARK = b'<meta name="generator" content="gpt3">'
"""What tells a page of ours (`fill_page`) from other files."""
TEXT = ("data", "mixture", "validation_fraction", "fold", "method", "filter", "near_duplicates")
SHAPE = ("model", "init_from", "layers", "width", "heads", "context", "device", "cores")
BASES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (("bits per byte",), TEXT, ("name", "documents")),
    (("held-out loss", "perplexity", "train loss"), (*TEXT, "tokenizer"), ("name", "documents", "tokens")),
    (("tokens/s", "MFU"), SHAPE, ()),
)
"""Figures, and the options and numbers of data.json's sources that must be equal for one of them to be better than another."""
NOT_FINITE = "not finite"
MOST_SKIPS = 1000
"""Skipped steps marked in the curves and listed; the count tells of all."""


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Draw run folders into one self-contained HTML file.

    Args:
        runs: run folders, at least one; several are compared.
        out: the file; replaced whole or not at all.

    Returns:
        `out`.

    Raises:
        InputError: a folder that is no run folder, or whose metrics cannot be read.
    """
    write_text(out, render(report_data(read_runs(runs))))
    return out


def live_page(runs: Sequence[Path], seconds: float, state: str) -> str:
    """The page of run folders that a server gives: while a run is unfinished, it looks for another state from time to time.

    Args:
        seconds: how often it sends a HEAD request to its own address.
        state: the ETag of such an answer as long as nothing new is there.

    Raises:
        InputError: as `write_report`.
    """
    read = read_runs(runs)
    going = any(not run.finished for run in read)
    return render(report_data(read) | {"live": {"seconds": seconds, "state": state} if going else None})


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs, with names that tell them apart."""
    return [replace(read_run(each), name=name) for each, name in zip(folders, unique_names(folders), strict=True)]


def report_data(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the page shows, as JSON values."""
    shown: list[dict[str, Any]] = []
    for run in runs:
        series = series_of(run.records)
        skips = [record for record in run.records if record.get("skipped")]
        shown.append(
            {
                "name": run.name,
                "folder": str(run.folder).encode("utf-8", "replace").decode(),
                "finished": run.finished,
                "written": run.written,
                "notes": [*run.notes, *_unfinite(run), *run.outlook],
                "summary": summary(run, series),
                "series": series,
                "skips": [_skip(record) for record in skips[:MOST_SKIPS]],
                "skipped": len(skips),
                "samples": run.samples,
                "sources": run.sources,
            }
        )
    _rank(shown, runs)
    keys = list(dict.fromkeys(key for run in shown for key in run["series"]))
    return {
        "runs": shown,
        "groups": chart_groups(keys, many=len(runs) > 1),
        "config": table([run.config for run in runs]),
        "environment": table([run.environment for run in runs]),
    }


def summary(run: Run, series: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A run in a few figures: label, text, and the number with which is better, ``low`` or ``high``, where that is a question.

    Args:
        series: the run's, see `series_of`.
    """
    rows: list[dict[str, Any]] = []

    def add(label: str, text: str, value: float | None = None, better: str = "", hint: str = "") -> None:
        rows.append({"label": label, "text": text, "value": value, "better": better, "hint": hint})

    if _ends_unfinite(run, "val/loss"):
        add("held-out loss", NOT_FINITE)
    elif validations := [record for record in run.records if number(record.get("val/loss")) is not None]:
        last = validations[-1]
        low, high = number(last.get("val/loss_low")), number(last.get("val/loss_high"))
        hint = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else ""
        add("held-out loss", f"{last['val/loss']:.3f}", last["val/loss"], "low", hint)
        if (perplexity := number(last.get("val/perplexity"))) is not None:
            add("perplexity", f"{perplexity:,.1f}", perplexity, "low")
        if (bits := number(last.get("val/bits_per_byte"))) is not None:
            add("bits per byte", f"{bits:.3f}", bits, "low")
    if _ends_unfinite(run, "loss"):
        add("train loss", NOT_FINITE)
    elif "loss" in series:
        final = next(value for value in reversed(series["loss"]["smooth"]) if value is not None)
        add("train loss", f"{final:.3f}", final, "low", "moving average")
    if values := run.numbers("tokens"):
        add("tokens", compact(max(values)), max(values))
    if run.records:
        step = run.records[-1]["step"]
        add("steps", f"{step:,}", step, hint=f"of {run.steps:,}" if run.steps not in (None, step) else "")
    if values := run.numbers("seconds"):
        seconds = max(values)
        add("training time", clock(seconds), seconds, hint="h:min:s" if seconds >= 3600 else "min:s")
    for key, label, form in (("tokens_per_s", "tokens/s", ",.0f"), ("mfu", "MFU", ".1%")):
        if values := run.numbers(key):
            middle = statistics.median(values)
            add(label, f"{middle:{form}}", middle, "high", "median")
    if values := run.numbers("noise_scale"):
        add("noise scale", compact(values[-1]), values[-1], hint="tokens, at the end")
    if run.energy.joules:
        add("energy", amount(run.energy.kwh), run.energy.kwh, hint="; ".join(run.energy.joules))
    if skipped := sum(bool(record.get("skipped")) for record in run.records):
        add("skipped steps", f"{skipped:,}", skipped)
    return rows


def _losses(run: Run, key: str) -> list[tuple[int, float | None]]:
    """Steps and their losses, None for one that is no finite number; not those of steps that were skipped for it."""
    return [
        (record["step"], number(record[key])) for record in run.records if key in record and not record.get("skipped")
    ]


def _ends_unfinite(run: Run, key: str) -> bool:
    losses = _losses(run, key)
    return bool(losses) and losses[-1][1] is None


def _unfinite(run: Run) -> list[str]:
    """What a gap in a curve of losses means, a line for each: nobody would see it in the figures."""
    notes = []
    for key in sorted({key for record in run.records for key in record if key.rpartition("/")[2] == "loss"}):
        losses = _losses(run, key)
        if steps := [step for step, loss in losses if loss is None]:
            many = f"{len(steps):,} of {len(losses):,} records"
            notes.append(f"{key} is {NOT_FINITE} in {many}, first at step {steps[0]:,}")
    return notes


def _rank(shown: Sequence[dict[str, Any]], runs: Sequence[Run]) -> None:
    """Of figures that the runs' data, tokenizer or machine decide, none is better unless these are the same."""
    for labels, settings, numbers in BASES:
        bases = [_basis(run, settings, numbers) for run in runs]
        if any(basis != bases[0] for basis in bases):
            for row in (row for run in shown for row in run["summary"] if row["label"] in labels):
                row["better"] = ""


def _basis(run: Run, settings: Sequence[str], numbers: Sequence[str]) -> tuple[list[Any], list[Any]]:
    known = run.config | run.environment
    sources = [[source[number] for number in numbers] for source in run.sources]
    return [known.get(setting) for setting in settings], sources if numbers else []


def table(columns: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Keys of several runs in columns: key, a value (or None) a run, and whether they differ."""
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        values = [column.get(key) for column in columns]
        rows.append({"key": key, "values": values, "differs": len(set(values)) > 1})
    return rows


def render(data: dict[str, Any]) -> str:
    """The HTML file."""
    names = [run["name"] for run in data["runs"]]
    title = html.escape(" · ".join(["gpt3", *names[:4], *(["…"] if len(names) > 4 else [])]))
    return fill_page("gpt3.report", "report", data, " connect-src 'self';" if data.get("live") else "", TITLE=title)


def fill_page(package: str, name: str, data: Any, further: str = "", **parts: str) -> str:
    """An HTML file from the assets NAME.html, NAME.css and NAME.js of a package.

    Its content security policy allows nothing but this script and this style to run or load.

    Args:
        data: for the script, as JSON values.
        further: what else the policy allows.
        parts: HTML by its name in NAME.html, there written as ``@@NAME@@``.
    """
    assets = resources.files(package) / "assets"
    style, script, page = ((assets / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    own = "style-src 'sha256-{}'; script-src 'sha256-{}'".format(*hashes)
    parts |= {
        "POLICY": f"default-src 'none'; {own};{further} base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": embedded(data),
    }
    return re.sub(r"@@([A-Z]+)@@", lambda match: parts[match[1]], page)


def embedded(data: Any) -> str:
    """JSON for an HTML script element: no character of it can end the element or begin a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))  # ASCII, so that any text fits UTF-8
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def compact(value: float) -> str:
    """A count in three digits: ``1.25M``, ``300B``, ``512``."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g}{letter}" if value / size < 999.5 else f"{value / size:.0f}{letter}"
    return f"{value:,.0f}"


def _skip(record: dict[str, Any]) -> dict[str, Any]:
    windows = record.get("windows")
    return {
        "step": record["step"],
        "tokens": number(record.get("tokens")),
        "reason": str(record["skipped"]),
        "windows": [str(window) for window in windows] if isinstance(windows, list) else [],
    }

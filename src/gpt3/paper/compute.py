"""Table D.1 and Figure 2.2: the computation that training takes, of the paper's models and of those trained here."""

from __future__ import annotations

import math

from gpt3.ladder.presets import PAPER_TOKENS, PF_DAY, PRESETS, paper_parameters, three_digits, training_flops
from gpt3.paper.experiment import Chart, Drawing, Experiment, Measured, Table, Work
from gpt3.paper.origins import origin
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line, decades

PRINTED = {
    "Small": 2.60, "Medium": 7.42, "Large": 15.8, "XL": 27.5, "2.7B": 55.2, "6.7B": 139.0, "13B": 268.0, "175B": 3640.0,
}  # fmt: skip
"""PF-days of Table D.1."""
OTHERS = {
    "T5-Small": (60e6, 2.08), "T5-Base": (220e6, 7.64), "T5-Large": (770e6, 26.7), "T5-3B": (3e9, 104.0),
    "T5-11B": (11e9, 382.0), "BERT-Base": (109e6, 1.89), "BERT-Large": (355e6, 6.16), "RoBERTa-Base": (125e6, 17.4),
    "RoBERTa-Large": (355e6, 49.3),
}  # fmt: skip
"""Parameters and PF-days of the other models of Table D.1."""


def measure(work: Work) -> Measured:
    """Parameters and tokens of the paper's models and of those here, where their runs say what they read."""
    paper = [
        {
            "name": preset.paper_name.removeprefix("GPT-3 "), "parameters": paper_parameters(preset.parameters),
            "tokens": PAPER_TOKENS,
        }
        for preset in PRESETS.values() if preset.paper_name
    ]  # fmt: skip
    return {"paper": paper, "models": [origin(model) for model in work.models]}


def draw(measured: Measured) -> Drawing:
    """PF-days over parameters, both as decades, and the table."""
    here = [row for row in measured["models"] if row["tokens"]]
    ours = [f"{row['name']}: {days(row):.2g} PF-days" for row in here]
    missing = [row["name"] for row in measured["models"] if not row["tokens"]]
    rows = [["model", "parameters", "tokens", "operations (6ND)", "PF-days", "PF-days in Table D.1"]]
    for row in [*here, *measured["paper"]]:
        flops = training_flops(row["parameters"], row["tokens"])
        printed = PRINTED.get(row["name"]) if row in measured["paper"] else None
        shown = f"{days(row):.2e}" if days(row) < 0.01 else three_digits(days(row))
        cells = [row["name"], f"{row['parameters']:,}", f"{row['tokens']:,}", f"{flops:.2e}", shown]
        rows.append([*cells, "" if printed is None else three_digits(printed)])
    rows += [[name, f"{size:,.0f}", "", "", "", three_digits(spent)] for name, (size, spent) in OTHERS.items()]
    lines = [
        Line("GPT-3", points([(row["parameters"], days(row)) for row in measured["paper"]]), COLORS[1]),
        Line("T5, BERT, RoBERTa", points(list(OTHERS.values())), COLORS[3], shows="points"),
    ]
    if here:
        lines.insert(
            0, Line("here", points([(row["parameters"], days(row)) for row in here]), COLORS[0], shows="points")
        )
    found = (
        [f"Training here took {', '.join(ours)}."]
        if ours
        else ["No model here comes from a run that says what it read."]
    )
    if here:
        times = PRINTED["175B"] / max(map(days, here))
        found.append(f"GPT-3 175B took {times:.2g} times the largest of these.")
    return Drawing(
        ours=found,
        paper=[
            "Table D.1: 2.60 PF-days for Small to 3,640 for 175B, each on 300B tokens; operations are 6 per parameter and token, "
            "attention left out (under 10%).",
            "GPT-3 2.7B took about what RoBERTa-Large did, 55.2 and 49.3 PF-days: 7 times its parameters, and 300B tokens in "
            "place of 2,000B.",
        ],
        notes=[
            "A PF-day is 8.64e19 operations. Parameters are all of them, as in Table D.1; Figure 3.1 leaves embeddings out.",
            "GPT-3's numbers are computed from the shapes that gpt3 builds, and agree with the printed ones.",
            *([f"Not drawn, since what they read is not known: {', '.join(missing)}."] if missing else []),
        ],
        charts=[Chart("Training compute over model size", axes(lines), lines)],
        tables=[Table("Table D.1", rows)],
    )


def days(row: dict[str, float]) -> float:
    """PF-days of a model and its tokens."""
    return training_flops(int(row["parameters"]), int(row["tokens"])) / PF_DAY


def points(pairs: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """As the chart has them: the height is a power of ten."""
    return [(size, math.log10(spent), 0.0) for size, spent in sorted(pairs)]


def axes(lines: list[Line]) -> Axes:
    """Both axes in decades."""
    sizes = [x for line in lines for x, _, _ in line.points]
    lowest = min(y for line in lines for _, y, _ in line.points)
    return Axes(
        "Training compute over model size", lines, "parameters", x_text=compact, scale=math.log10,
        y_text=lambda power: f"{10**power:g}", bottom=math.floor(lowest),
        x_marks=decades(sizes),
    )  # fmt: skip


EXPERIMENT = Experiment("D", "Compute of training", measure, draw)

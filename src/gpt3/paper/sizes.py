"""Table 2.1: the paper's eight models, rebuilt: their exact number of parameters next to the one that the paper prints."""

from __future__ import annotations

from gpt3.paper.experiment import Drawing, Experiment, Measured, Table, Work

PRINTED = {
    "Small": 125e6, "Medium": 350e6, "Large": 760e6, "XL": 1.3e9, "2.7B": 2.7e9, "6.7B": 6.7e9, "13B": 13.0e9, "175B": 175.0e9,
}  # fmt: skip
"""n_params of Table 2.1."""
PARAMETERS = tuple(PRINTED.values())
MARKED = (125e6, 1.3e9, 13e9, 175e9)
"""Of these, below an axis."""


def measure(work: Work) -> Measured:
    """Parameters of each preset of the paper, counted from its shape."""
    from gpt3.ladder.presets import PRESETS

    rows = [
        {
            "name": preset.paper_name.removeprefix("GPT-3 "),
            "layers": preset.n_layers, "width": preset.d_model, "heads": preset.n_heads,
            "head_width": preset.d_head, "parameters": preset.parameters,
        }
        for preset in PRESETS.values() if preset.paper_name
    ]  # fmt: skip
    return {"rows": rows}


def draw(measured: Measured) -> Drawing:
    """A table: the shapes, both numbers."""
    rows = [["model", "layers", "width", "heads", "head width", "parameters here", "printed"]]
    for row in measured["rows"]:
        shape = [f"{row[key]:,}" for key in ("layers", "width", "heads", "head_width", "parameters")]
        rows.append([row["name"], *shape, f"{PRINTED[row['name']]:,.0f}"])
    return Drawing(
        ours=[
            "gpt3 builds every model of the paper; parameters are counted from the shape, with tied embeddings and biases."
        ],
        paper=["Table 2.1 prints eight sizes from 125M to 175B, rounded."],
        notes=[
            "Two rows of Table 2.1 contradict the paper's own Table D.1 and are corrected here: 13B is 5,120 wide (5,140 is "
            "printed), and XL has 16 heads of 128 (24 are printed)."
        ],
        tables=[Table("Table 2.1", rows)],
    )


EXPERIMENT = Experiment("2.1", "Sizes of the models", measure, draw)

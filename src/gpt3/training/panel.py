"""A run while it trains: a live panel on a terminal or in a notebook, else a plain line now and then, on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel as Frame
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gpt3.progress import Progress, clock
from gpt3.report.run_folder import number

if TYPE_CHECKING:
    from gpt3.training.notebook import NotebookView

REFRESH_SECONDS, NOTEBOOK_SECONDS = 0.25, 1.0
"""A panel is drawn at most this often, on a terminal and in a notebook."""
CURVE_LINES = 4
SAMPLE_LINES = 3
MOST_WIDTH = 110
VALIDATION, LOSS = "val/", "loss"
HELD_OUT = "held-out"
NUMBERS = {
    "loss": "[dim]loss[/] [bold]{:.3f}[/]",
    "accuracy": "[dim]accuracy[/] [bold]{:.1%}[/]",
    "reward_margin": "[dim]reward margin[/] [bold]{:.3f}[/]",
    "lr": "[dim]lr[/] [bold]{:.2e}[/]",
    "grad_norm": "[dim]grad norm[/] [bold]{:.2f}[/]",
    "noise_scale": "[dim]noise scale[/] [bold]{:,.0f}[/]",
    "tokens_per_s": "[bold]{:,.0f} tok/s[/]",
    "mfu": "[dim]MFU[/] [bold]{:.0%}[/]",
    "tokens": "[dim]tokens[/] [bold]{:,}[/]",
}
"""How a training record's numbers are shown, as rich's markup."""
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:|"
CURVE_PARTS = 4096
"""The curve is kept as means over this many parts of the run, however many its steps."""
LOUD = 0.02
"""The share of the highest values that the curve cuts off, so that one spike or the first steps do not flatten the rest."""


class Panel:
    """A context manager that shows a training run.

    Args:
        label: what is trained, e.g. ``"training demo"``.
        total_steps: the step at which the run ends.
        start: steps done before (a resumed run); they do not count into the speed.
        console: where to; by default stderr. Where that is no terminal, lines as `gpt3.progress.Progress` gives them.
    """

    def __init__(self, label: str, total_steps: int, start: int = 0, console: Console | None = None) -> None:
        self.label, self.total, self.start, self.step = label, total_steps, start, start
        self.console = console or Console(stderr=True)
        terminal = self.console.is_terminal if console is not None else sys.stderr.isatty()
        self.plain = Progress(label, total_steps, "steps", start)
        self.began, self.drawn = time.monotonic(), -math.inf
        self.last: Mapping[str, Any] = {}
        self.losses = np.zeros((2, CURVE_PARTS))  # of each part of the run: their sum, and how many they are
        self.validations: dict[str, dict[str, Any]] = {}  # a set's last numbers, by its name
        self.best: dict[str, float] = {}  # a set's least loss
        self.held_out: list[tuple[int, float]] = []  # step and loss of each validation
        self.skipped_in_a_row, self.last_skipped = 0, -1
        self.last_skip = ""
        self.prompt = self.text = ""
        self._live: Live | NotebookView | None = None
        self.seconds = REFRESH_SECONDS
        if self.console.is_jupyter:
            from gpt3.training.notebook import NotebookView

            self._live, self.seconds = NotebookView(self), NOTEBOOK_SECONDS
        elif terminal and not self.console.is_dumb_terminal:
            # standard output may be a pipe or a file although stderr is a terminal: leave it alone then
            out = sys.stdout.isatty()
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=out, get_renderable=self.render)

    def change_total(self, steps: int) -> None:
        """The run now ends at another step."""
        parts = np.minimum(np.arange(CURVE_PARTS) * self.total // steps, CURVE_PARTS - 1)
        self.losses = np.stack([np.bincount(parts, row, CURVE_PARTS) for row in self.losses])
        self.total = self.plain.total = steps

    def __enter__(self) -> Panel:
        if self._live is not None:
            self._live.start()
            self.refresh(force=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()  # draws once more

    def log(self, record: Mapping[str, Any]) -> None:
        """Take a record of metrics.jsonl: a step's, a skipped step's or a validation's; others are ignored."""
        if any(key.startswith(VALIDATION) for key in record):
            self._validation(record)
        elif LOSS in record:
            self._training(record)

    def _training(self, record: Mapping[str, Any]) -> None:
        self.step = int(record["step"])
        if record.get("skipped"):
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if self.step == self.last_skipped + 1 else 1
            self.last_skipped = self.step
            self.last_skip = f"step {self.step:,}: {record['skipped']}"
            # a lone spike is harmless: the end of the run counts them
            if self._live is None and self.skipped_in_a_row > 1:
                windows = record.get("windows")
                where = f" (windows {windows[0]} to {windows[-1]})" if windows else ""
                self.plain.say(
                    f"step {self.step} skipped, {self.skipped_in_a_row} in a row: {record['skipped']}{where}"
                )
        else:
            self.last, self.skipped_in_a_row = record, 0
            if (loss := number(record[LOSS])) is not None:
                self.losses[:, (self.step - 1) * CURVE_PARTS // self.total] += (loss, 1)
        if self._live is not None:
            self.refresh()
        else:
            numbers = _numbers({name: self.last[name] for name in self.last if name not in ("tokens", "lr")})
            self.plain.update(self.step, ", ".join(text.plain for text in numbers))

    def _validation(self, record: Mapping[str, Any]) -> None:
        sets: dict[str, dict[str, Any]] = {}
        for key, value in record.items():
            if key.startswith(VALIDATION):
                name, _, metric = key.removeprefix(VALIDATION).rpartition("/")
                sets.setdefault(name or HELD_OUT, {})[metric] = value
        self.validations |= sets
        for name, found in sets.items():
            if (loss := number(found.get(LOSS))) is not None:
                self.best[name] = min(loss, self.best.get(name, math.inf))
                if name == HELD_OUT:
                    self.held_out.append((int(record["step"]), loss))
            if self._live is None:
                what = "validation" if name == HELD_OUT else f"validation on {name}:"
                self.plain.say(f"step {record['step']}: {what} {', '.join(_validation_parts(found))}")
        self.refresh(force=True)

    def sample(self, prompt: str, text: str) -> None:
        """Show what the model wrote. Plain lines leave it to samples.jsonl."""
        self.prompt, self.text = prompt, text
        self.refresh(force=True)

    def refresh(self, force: bool = False) -> None:
        """Draw, if the last time is long enough ago."""
        now = time.monotonic()
        if self._live is not None and (force or now - self.drawn >= self.seconds):
            self.drawn = now
            self._live.refresh()

    # ---- what it looks like ----------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The panel as it stands."""
        width = min(self.console.width, MOST_WIDTH)
        inner = max(1, width - 4)
        parts: list[RenderableType] = [self._bar(), *self._curve(inner)]
        parts += self._packed(_numbers(self.last), inner, gap=3) or [Text("waiting for the first step", style="dim")]
        if self.validations:
            parts += self._validation_lines(inner)
        if self.skipped_in_a_row > 1:
            parts.append(self._line(f"skipped {self.skipped_in_a_row:,} in a row, last {self.last_skip}", "red"))
        if self.prompt or self.text:
            parts += [Text(""), self._sample(inner)]
        return Frame(
            Group(*parts),
            title=self._line(self.label, "bold"),
            title_align="left",
            subtitle=Text(f"step {self.step:,} of {self.total:,}"),
            subtitle_align="right",
            width=width,
            box=box.ROUNDED if self._unicode else box.ASCII,
            border_style="dim",
        )

    def rows(self) -> list[tuple[str, str]]:
        """The same as names and texts, for a table."""
        rows = [(self.label, f"step {self.step:,} of {self.total:,}, {self._times().strip()}")]
        if self.last:
            rows.append(("train", ", ".join(text.plain for text in _numbers(self.last))))
        rows += [(name, ", ".join(_validation_parts(found))) for name, found in self.validations.items()]
        if self.skipped_in_a_row > 1:
            rows.append(("skipped", f"{self.skipped_in_a_row:,} in a row, last {self.last_skip}"))
        return rows + [("sample", self.prompt + self.text)] * bool(self.prompt or self.text)

    def _times(self) -> str:
        elapsed = time.monotonic() - self.began
        speed = (self.step - self.start) / elapsed if elapsed > 0 else 0.0
        left = f"  ETA {clock((self.total - self.step) / speed)}" if speed > 0 else ""
        return f"{self.step / self.total:4.0%}  {clock(elapsed)}{left}"

    def _bar(self) -> Table:
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_row(ProgressBar(self.total, self.step), self._line(self._times()))
        return bar

    def _curve(self, width: int) -> list[Text]:
        sums, counts = self.losses[:, self.losses[1] > 0]
        if len(sums) < 2:
            return []
        rows, low, high = sparkline((sums / counts).tolist(), max(1, width - 8), CURVE_LINES, self._unicode)
        labels = [f"{high:7.3f} ", *[" " * 8] * (CURVE_LINES - 2), f"{low:7.3f} "]
        return [
            Text(""),
            *(Text.assemble((label, "dim"), (row, "cyan")) for label, row in zip(labels, rows, strict=True)),
            Text(""),
        ]

    def _validation_lines(self, width: int) -> list[Text]:
        lines = []
        for name, found in self.validations.items():
            items = [self._line(name, "magenta"), *map(self._line, _validation_parts(found))]
            if self.best.get(name, math.inf) < (number(found.get(LOSS)) or -math.inf):
                items.append(self._line(f"best {self.best[name]:.3f}", "dim"))
            lines += self._packed(items, width, gap=2)
        return lines

    def _packed(self, items: Sequence[Text], width: int, gap: int) -> list[Text]:
        """Items next to each other, as many on a line as fit: none is split."""
        lines: list[Text] = []
        for item in items:
            if lines and lines[-1].cell_len + gap + item.cell_len <= width:
                lines[-1].append(" " * gap).append_text(item)
            else:
                lines.append(self._line("").append_text(item))
        return lines

    def _sample(self, width: int) -> Text:
        text = Text.assemble((self._safe(self.prompt), "bold"), self._safe(self.text))
        text = Text(" ").join(text.split("\n"))
        most = width * SAMPLE_LINES * 9 // 10  # words that do not fit leave the ends of lines empty
        if text.cell_len > most:
            text.truncate(most - 3)
            text.append("…" if self._unicode else "...", style="dim")
        return text

    @property
    def _unicode(self) -> bool:
        return self.console.encoding.lower().startswith("utf")

    def _line(self, text: str, style: str = "") -> Text:
        """One line, cut where it is too long; rich's sign for a cut is not in every encoding."""
        return Text(self._safe(text), style=style, no_wrap=True, overflow="ellipsis" if self._unicode else "crop")

    def _safe(self, text: str) -> str:
        """Without control characters, which a model may well write, and with what the terminal's encoding has."""
        shown = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
        return shown.encode(self.console.encoding, "replace").decode(self.console.encoding)


def _numbers(record: Mapping[str, Any]) -> list[Text]:
    """A training record's numbers with their names; those that are missing are left out."""
    shown = {key: number(record.get(key)) for key in NUMBERS}
    return [Text.from_markup(NUMBERS[key].format(value)) for key, value in shown.items() if value is not None]


def _validation_parts(found: Mapping[str, Any]) -> list[str]:
    """A set's numbers as texts."""
    names = ("loss", "loss_low", "loss_high", "perplexity", "bits_per_byte", "accuracy", "reward_accuracy")
    loss, low, high, perplexity, bits, *accuracies = (number(found.get(name)) for name in names)
    parts = []
    if loss is not None:
        parts.append(f"loss {loss:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})"))
    if perplexity is not None:
        parts.append(f"perplexity {perplexity:,.1f}")
    if bits is not None:
        parts.append(f"{bits:.3f} bits per byte")
    return parts + [f"accuracy {accuracy:.1%}" for accuracy in accuracies if accuracy is not None]


def sparkline(values: Sequence[float], width: int, lines: int, unicode: bool = True) -> tuple[list[str], float, float]:
    """`values` as `lines` strings of `width` characters, the top one first, with the values of the lowest and highest level.

    Args:
        values: finite, at least one. More than `width` are averaged in groups, fewer are spread out.
        unicode: eighths of a block; otherwise ASCII.
    """
    columns = resampled(values, width)
    ordered = sorted(columns)
    low, high = ordered[0], ordered[max(0, math.ceil(len(ordered) * (1 - LOUD)) - 1)]
    glyphs = BLOCKS if unicode else ASCII
    full = len(glyphs) - 1
    levels = []
    for value in columns:
        share = 0.5 if high == low else min(1.0, (value - low) / (high - low))
        levels.append(1 + round(share * (lines * full - 1)))  # at least one level, so that the lowest is seen
    rows = [
        "".join(glyphs[min(full, max(0, level - full * below))] for level in levels)
        for below in range(lines - 1, -1, -1)
    ]
    return rows, low, high


def resampled(values: Sequence[float], width: int) -> list[float]:
    """`values` as `width` numbers: means of groups, or each value several times."""
    first = np.arange(width) * len(values) // width
    sums: np.ndarray = np.add.reduceat(np.array(values, dtype=float), first)
    means: list[float] = (sums / np.maximum(1, np.diff(first, append=len(values)))).tolist()
    return means

"""A run as it goes: a live panel on a terminal, a plain line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeGuard

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gpt3.progress import Progress, clock
from gpt3.training.sparkline import History, sparkline

REFRESH_SECONDS = 0.25
"""A panel is drawn at most this often."""
CURVE_LINES = 4
SAMPLE_LINES = 3
MOST_WIDTH = 110
VALIDATION, LOSS = "val/", "loss"
HELD_OUT = "held-out"


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
        self.live = terminal and not self.console.is_dumb_terminal
        self.plain = Progress(label, total_steps, "steps", start)
        self.began, self.drawn = time.monotonic(), -math.inf
        self.last: Mapping[str, Any] = {}
        self.history = History()
        self.validations: dict[str, dict[str, Any]] = {}  # a set's last numbers, by its name
        self.best: dict[str, float] = {}  # a set's least loss
        self.skips = 0
        self.last_skip = ""
        self.prompt = self.text = ""
        self._live: Live | None = None

    def __enter__(self) -> Panel:
        if self.live:
            # standard output may be a pipe or a file although stderr is a terminal: leave it alone then
            self._live = Live(
                console=self.console,
                auto_refresh=False,
                redirect_stdout=sys.stdout.isatty(),
                get_renderable=self.render,
            )
            self._live.start()
            self.refresh(force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()  # draws once more
            self._live = None

    def update(self, record: Mapping[str, Any]) -> None:
        """Take a training record (step, tokens, loss, lr, grad_norm, tokens_per_s, mfu), or that of a skipped step."""
        self.step = int(record.get("step", self.step))
        if record.get("skipped"):
            self.skips += 1
            self.last_skip = f"step {self.step:,}: {record['skipped']}"
            if self._live is None:
                windows = record.get("windows")
                where = f" (windows {windows[0]} to {windows[-1]})" if windows else ""
                self.say(f"step {self.step} skipped: {record['skipped']}{where}")
        else:
            self.last = record
            self.history.add(record.get(LOSS))
        if self._live is not None:
            self.refresh()
        else:
            self.plain.update(self.step, self._note())

    def validation(self, record: Mapping[str, Any]) -> None:
        """Take a validation record: ``val/METRIC`` of the run's own set, ``val/NAME/METRIC`` of others."""
        for key, value in record.items():
            if key.startswith(VALIDATION):
                name, _, metric = key.removeprefix(VALIDATION).rpartition("/")
                self.validations.setdefault(name or HELD_OUT, {})[metric] = value
        for name, found in self.validations.items():
            loss = found.get(LOSS)
            if _is_number(loss):
                self.best[name] = min(loss, self.best.get(name, math.inf))
        if self._live is not None:
            self.refresh(force=True)
            return
        step = record.get("step", self.step)
        for name in dict.fromkeys(_set_name(key) for key in record if key.startswith(VALIDATION)):
            what = "validation" if name == HELD_OUT else f"validation on {name}:"
            self.say(f"step {step}: {what} {', '.join(_validation_parts(self.validations[name]))}")

    def sample(self, prompt: str, text: str) -> None:
        """Show what the model wrote. Plain lines leave it to samples.jsonl."""
        self.prompt, self.text = prompt, text
        if self._live is not None:
            self.refresh(force=True)

    def say(self, text: str) -> None:
        """Print a line of its own, above the panel."""
        if self._live is not None:
            self.console.print(self._safe(text), markup=False, highlight=False)
        else:
            self.plain.say(text)

    def refresh(self, force: bool = False) -> None:
        """Draw, if the last time is long enough ago."""
        now = time.monotonic()
        if self._live is not None and (force or now - self.drawn >= REFRESH_SECONDS):
            self.drawn = now
            self._live.refresh()

    # ---- what it looks like ----------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The panel as it stands."""
        from rich import box
        from rich.panel import Panel as Frame

        width = min(self.console.width, MOST_WIDTH)
        inner = max(1, width - 4)
        parts: list[RenderableType] = [self._bar(inner), *self._curve(inner), *self._numbers(inner)]
        if self.validations:
            parts.append(self._validation_table(inner))
        if self.skips:
            parts.append(self._line(f"skipped {self.skips:,}, last {self.last_skip}", "red"))
        if self.prompt or self.text:
            parts += [Text(""), *self._sample(inner)]
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

    def _bar(self, width: int) -> Text:
        done = min(1.0, self.step / self.total) if self.total else 1.0
        elapsed = time.monotonic() - self.began
        speed = (self.step - self.start) / elapsed if elapsed > 0 else 0.0
        times = f" {done:4.0%}  {clock(elapsed)}"
        if speed > 0 and width > 30:
            times += f"  ETA {clock((self.total - self.step) / speed)}"
        length = max(4, width - len(times))
        filled = int(length * done)
        full, empty = ("━", "━") if self._unicode else ("#", ".")
        return Text.assemble((full * filled, "green"), (empty * (length - filled), "bright_black"), times)

    def _curve(self, width: int) -> list[Text]:
        values = self.history.values()
        if len(values) < 2:
            return []
        rows, low, high = sparkline(values, max(1, width - 8), CURVE_LINES, self._unicode)
        labels = [f"{high:7.3f} ", *[" " * 8] * (CURVE_LINES - 2), f"{low:7.3f} "]
        return [
            Text(""),
            *(Text.assemble((label, "dim"), (row, "cyan")) for label, row in zip(labels, rows, strict=True)),
            Text(""),
        ]

    def _numbers(self, width: int) -> list[Text]:
        items = [
            Text.assemble((f"{name} " if name else "", "dim"), (value, "bold")) for name, value in _numbers(self.last)
        ]
        return self._packed(items, width, gap=3) or [Text("waiting for the first step", style="dim")]

    def _validation_table(self, width: int) -> RenderableType:
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        rows = []
        for name, found in self.validations.items():
            best, loss = self.best.get(name), found.get(LOSS)
            note = f"best {best:.3f}" if best is not None and _is_number(loss) and best < loss else ""
            parts = _validation_parts(found)
            cells = [self._line(part) for part in [*parts, "", "", ""][:3]]
            cells = [self._line(name, "magenta"), *cells, self._line(note, "dim")]
            grid.add_row(*cells)
            rows += self._packed([cell for cell in cells if cell], width, gap=2)
        wide = self.console.measure(grid).maximum <= width
        return grid if wide else Group(*rows)

    def _packed(self, items: Sequence[Text], width: int, gap: int) -> list[Text]:
        """Items side by side, as many on a line as there is room for: none is parted."""
        lines: list[Text] = []
        for item in items:
            if lines and lines[-1].cell_len + gap + item.cell_len <= width:
                lines[-1].append(" " * gap).append_text(item)
            else:
                lines.append(self._line("").append_text(item))
        return lines

    def _sample(self, width: int) -> list[Text]:
        text = Text.assemble((self._safe(self.prompt), "bold"), self._safe(self.text))
        text = Text(" ").join(text.split("\n"))
        lines = list(text.wrap(self.console, width))[: SAMPLE_LINES + 1]
        if len(lines) > SAMPLE_LINES:
            lines = lines[:SAMPLE_LINES]
            lines[-1].truncate(max(0, width - 3))
            lines[-1].append("…" if self._unicode else "...", style="dim")
        return lines

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

    def _note(self) -> str:
        return ", ".join(
            " ".join(filter(None, pair)) for pair in _numbers(self.last) if pair[0] not in ("tokens", "lr")
        )


def _numbers(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of a training record's numbers; those that are missing are left out."""
    forms = (
        ("loss", "loss", lambda v: f"{v:.3f}"),
        ("lr", "lr", lambda v: f"{v:.2e}"),
        ("grad_norm", "grad norm", lambda v: f"{v:.2f}"),
        ("tokens_per_s", "", lambda v: f"{v:,.0f} tok/s"),
        ("mfu", "MFU", lambda v: f"{v:.0%}"),
        ("tokens", "tokens", lambda v: f"{v:,}"),
    )
    return [(name, form(record[key])) for key, name, form in forms if _is_number(record.get(key))]


def _validation_parts(found: Mapping[str, Any]) -> list[str]:
    """A set's numbers as texts."""
    parts = []
    if _is_number(found.get("loss")):
        low, high = found.get("loss_low"), found.get("loss_high")
        interval = f" ({low:.3f} to {high:.3f})" if _is_number(low) and _is_number(high) else ""
        parts.append(f"loss {found['loss']:.3f}{interval}")
    if _is_number(found.get("perplexity")):
        parts.append(f"perplexity {found['perplexity']:,.1f}")
    if _is_number(found.get("bits_per_byte")):
        parts.append(f"{found['bits_per_byte']:.3f} bits per byte")
    return parts


def _set_name(key: str) -> str:
    return key.removeprefix(VALIDATION).rpartition("/")[0] or HELD_OUT


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)

"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

import math
import threading

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, math.inf)
"""Upper bounds of the histograms, seconds."""
HELP = {
    "gpt3_requests_total": ("counter", "Answered requests by path and status."),
    "gpt3_prompt_tokens_total": ("counter", "Tokens of prompts of requests that began."),
    "gpt3_completion_tokens_total": ("counter", "Tokens generated."),
    "gpt3_steps_total": ("counter", "Forward passes of the engine."),
    "gpt3_cancelled_total": ("counter", "Requests whose client went away."),
    "gpt3_timeouts_total": ("counter", "Requests that took longer than the limit."),
    "gpt3_rejected_total": ("counter", "Requests refused because the queue was full."),
    "gpt3_texts_running": ("gauge", "Texts being generated."),
    "gpt3_requests_waiting": ("gauge", "Requests of which no text has started."),
    "gpt3_first_token_seconds": ("histogram", "From a request's arrival to its first token."),
    "gpt3_request_seconds": ("histogram", "From a request's arrival to its last token."),
}


class Metrics:
    """What the server counts. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, float]] = {name: {} for name in HELP}  # of each series, by its metric
        for name, (kind, _) in HELP.items():
            if kind == "histogram":
                self._add_duration(name, 0.0, 0)
            elif name != "gpt3_requests_total":  # it has labels
                self._values[name][name] = 0

    def add(self, name: str, number: float = 1, **labels: str) -> None:
        """Count."""
        label = ",".join(f'{label}="{value}"' for label, value in labels.items())
        with self._lock:
            self._add(name, f"{name}{{{label}}}" if label else name, number)

    def observe(self, name: str, seconds: float) -> None:
        """Add a duration to a histogram."""
        with self._lock:
            self._add_duration(name, seconds, 1)

    def _add(self, name: str, series: str, number: float) -> None:
        self._values[name][series] = self._values[name].get(series, 0) + number

    def _add_duration(self, name: str, seconds: float, count: int) -> None:
        for bound in BUCKETS:
            label = "+Inf" if bound == math.inf else str(bound)
            self._add(name, f'{name}_bucket{{le="{label}"}}', count if seconds <= bound else 0)
        self._add(name, f"{name}_sum", seconds)
        self._add(name, f"{name}_count", count)

    def render(self, **gauges: float) -> str:
        """The text of /metrics; the caller reads the gauges."""
        lines = []
        with self._lock:
            for name, (kind, text) in HELP.items():
                values = {name: gauges[name]} if kind == "gauge" else self._values[name]
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                lines += [f"{series} {value:.15g}" for series, value in values.items()]
        return "\n".join(lines) + "\n"

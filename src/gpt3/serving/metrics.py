"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histograms, seconds."""

HELP = {
    "gpt3_requests_total": ("counter", "Answered requests by path and status."),
    "gpt3_prompt_tokens_total": ("counter", "Tokens of prompts of requests that began."),
    "gpt3_completion_tokens_total": ("counter", "Tokens written."),
    "gpt3_steps_total": ("counter", "Forwards of the engine."),
    "gpt3_cancelled_total": ("counter", "Requests whose client went away."),
    "gpt3_timeouts_total": ("counter", "Requests that took longer than the limit."),
    "gpt3_rejected_total": ("counter", "Requests refused because the queue was full."),
    "gpt3_texts_running": ("gauge", "Texts being written."),
    "gpt3_requests_waiting": ("gauge", "Requests of which no text has begun."),
    "gpt3_first_token_seconds": ("histogram", "From a request's arrival to its first token."),
    "gpt3_request_seconds": ("histogram", "From a request's arrival to its last token."),
}


class Metrics:
    """What the server counts. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms = {name: [0] * (len(BUCKETS) + 1) for name, (kind, _) in HELP.items() if kind == "histogram"}
        self._sums: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, number: float = 1, **labels: str) -> None:
        """Count."""
        key = ",".join(f'{label}="{value}"' for label, value in labels.items())
        with self._lock:
            self._values[name][key] += number

    def observe(self, name: str, seconds: float) -> None:
        """Put a duration into a histogram."""
        with self._lock:
            self._histograms[name][bisect_left(BUCKETS, seconds)] += 1
            self._sums[name] += seconds

    def render(self, **gauges: float) -> str:
        """The text of /metrics; the gauges are read by the caller."""
        lines = []
        with self._lock:
            for name, (kind, text) in HELP.items():
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                if kind == "histogram":
                    total = 0
                    for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._histograms[name], strict=True):
                        total += count
                        lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
                    lines += [f"{name}_sum {self._sums[name]:.6f}", f"{name}_count {total}"]
                elif kind == "gauge":
                    lines.append(f"{name} {gauges[name]:g}")
                else:
                    values = self._values[name] or {"": 0.0}
                    lines += [
                        f"{name}{{{key}}} {value:.0f}" if key else f"{name} {value:.0f}"
                        for key, value in values.items()
                    ]
        return "\n".join(lines) + "\n"

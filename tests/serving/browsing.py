"""A person at the Playground in headless Chromium."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class Person:
    """A browser window at the Playground.

    Attributes:
        faults: what went wrong in the page's own code.
    """

    def __init__(self, browser, url: str, size: dict[str, int] = DESK, **options) -> None:
        self.window = browser.new_context(viewport=size, has_touch=size is PHONE, **options)
        self.page = self.window.new_page()
        self.page.set_default_timeout(60_000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)
        self.open(url)

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.page.wait_for_selector("#model option", state="attached")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait; the page's policy forbids Playwright's own way, which evaluates text as code."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            self.page.wait_for_timeout(20)

    @property
    def status(self) -> str:
        return self.page.inner_text("#status")

    @property
    def text(self) -> str:
        return self.page.input_value("#text")

    def marked(self, kind: str) -> list[str]:
        """The parts of the text under which there are marks of this kind."""
        mark = "({ dataset }) => text.value.slice(dataset.start, dataset.end)"
        return self.page.evaluate(f"(kind) => [...document.querySelectorAll(kind)].map({mark})", f"#shades {kind}")

    def finished(self) -> None:
        self.page.wait_for_selector("#submit:visible")

    def write(self, text: str) -> str:
        """Type, Ctrl+Enter, wait; what stands there then."""
        self.page.fill("#text", text)
        self.page.focus("#text")
        self.page.keyboard.press("Control+Enter")
        self.until(lambda: "tokens in" in self.status)
        self.finished()
        return self.text

    def look(self, name: str) -> None:
        if folder := os.environ.get("GPT3_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))

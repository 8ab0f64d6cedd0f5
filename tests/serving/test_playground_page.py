"""The Playground as it is shipped: nothing is loaded from elsewhere, and its colours can be read."""

import re
from importlib import resources

import pytest

ASSETS = resources.files("gpt3.serving") / "assets"


def read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def test_the_page_and_all_it_loads_come_from_here_under_a_strict_policy(live) -> None:
    status, page, headers = live.ask("/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)  # nothing inline
    assert not re.search(r"https?://|//cdn", page)
    names = {*re.findall(r'"/playground/([\w.]+)"', page), *re.findall(r'from "\./([\w.]+)"', read("playground.js"))}
    assert {"playground.js", "playground.css", "api.js", "chat.js"} <= names
    for name in names:
        status, text, headers = live.ask(f"/playground/{name}")
        assert status == 200
        assert headers["content-type"].startswith(
            {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
        )
        assert "innerHTML" not in text  # what a model writes is put in as text
        assert "https://" not in text
    assert live.ask("/playground/..%2f__init__.py")[0] == 404


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_wcag_aa(theme: str) -> None:
    selector = re.escape(":root" if theme == "light" else ':root[data-theme="dark"]')
    colours = dict(
        re.findall(
            r"--([\w-]+): (#[0-9a-f]{6})", re.search(selector + r" \{(.*?)\}", read("playground.css"), re.DOTALL)[1]
        )
    )
    for ink, grounds in {
        "ink": ["page", "card", "press", "bad-card", "written", "p0", "p1", "p2", "p3", "p4"],
        "soft": ["page", "card"],
        "accent": ["page", "card", "press"],
        "on-accent": ["accent"],
        "on-p": ["p0", "p1", "p2", "p3", "p4"],
        "bad": ["page", "card"],
    }.items():
        for ground in grounds:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["edge"], colours["card"]) >= 3  # of fields

"""The Playground: what is shipped loads nothing from elsewhere; driven in a real browser where there is one (-m slow)."""

import re
import shutil
from importlib import resources

import pytest
from live_server import serving

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
        assert headers["content-type"].startswith("text/javascript" if name.endswith(".js") else "text/css")
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
        "ink": ["page", "card", "press", "written", "bar", "p0", "p1", "p2", "p3", "p4"],
        "soft": ["page", "card"],
        "accent": ["page", "card", "press"],
        "on-accent": ["accent"],
        "on-p": ["p0", "p1", "p2", "p3", "p4"],
        "bad": ["page", "card"],
    }.items():
        for ground in grounds:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["edge"], colours["card"]) >= 3  # of fields


@pytest.mark.slow
def test_a_person_can_use_it(language_model) -> None:
    """Type, stream, colour, point, branch, undo, stop, an error: in headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("needs chromium")
    with serving(language_model) as live, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(live.url)
        page.wait_for_selector("#model option", state="attached")
        page.select_option("#show", "full")
        page.fill("#text", "The sea")
        page.focus("#text")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#submit:visible")
        page.wait_for_selector("#shades .t")
        written = page.input_value("#text")
        assert written.startswith("The sea")
        assert len(written) > len("The sea")
        spans = page.locator("#shades .t")
        assert "".join(spans.all_text_contents()) == written[len("The sea") :]
        box = spans.nth(1).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#token:visible")
        assert "The top five cover" in page.inner_text("#token")
        page.locator("#token button:not([disabled])").last.click()
        page.wait_for_selector("#submit:visible")
        assert page.input_value("#text") != written
        page.keyboard.press("Control+z")
        assert page.input_value("#text") == written
        page.keyboard.press("Control+z")
        assert page.input_value("#text") == "The sea"
        assert not faults
        page.fill("#text", "word " * 400)
        page.click("#submit")
        page.wait_for_selector("#problem:visible")
        assert "maximum context length" in page.inner_text("#problem")
        browser.close()

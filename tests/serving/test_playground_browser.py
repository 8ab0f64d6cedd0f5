"""The Playground driven in headless Chromium as a person does (-m slow). GPT3_SCREENSHOTS=FOLDER keeps pictures to look at."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from browsing import DESK, PHONE, Person
from live_server import TEMPLATE, serving, slowed

pytestmark = pytest.mark.slow


@pytest.fixture
def person(browser, live):
    person = Person(browser, live.url)
    yield person
    assert not person.faults
    person.window.close()


def test_writing_in_place(person, language_model) -> None:
    """Type, stream, stop, undo, redo, regenerate."""
    page = person.page
    person.look("start")
    written = person.write("The sea")
    assert written.startswith("The sea")
    assert len(written) > len("The sea")
    assert "".join(person.marked(".written")) == written[len("The sea") :]
    assert re.match(r"\d+ tokens in .* · maximum length", person.status)
    person.until(lambda: re.fullmatch(r"\d+ / 128 tokens", page.inner_text("#count")))
    person.look("written")
    page.keyboard.press("Control+z")
    assert person.text == "The sea"
    page.keyboard.press("Control+Shift+z")
    assert person.text == written
    page.keyboard.press("Control+Shift+Enter")
    person.until(lambda: "tokens in" in person.status)
    person.finished()
    assert person.text.startswith("The sea")
    assert person.text != written
    page.fill("#max_tokens", "120")
    page.fill("#text", "The sea")
    page.focus("#text")
    with slowed(language_model.engine, 0.05):
        page.keyboard.press("Control+Enter")
        person.until(lambda: len(person.text) > 12)
        assert page.get_attribute("#work", "aria-busy") == "true"
        person.look("streaming")
        page.keyboard.press("Escape")
        person.finished()
    assert person.status.startswith("stopped after")


def test_probabilities(person) -> None:
    """Three colourings; point at a token; branch from it; keys do the same."""
    page = person.page
    page.select_option("#show", "full")
    written = person.write("The sea")
    spans = page.locator("#shades .t")
    assert "".join(person.marked(".t")) == written[len("The sea") :]
    assert page.evaluate("shades.scrollHeight === text.scrollHeight && shades.firstChild.data === text.value")
    coloured = {}
    for mode in ("full", "most", "least"):
        page.select_option("#show", mode)
        coloured[mode] = {i for i in range(spans.count()) if re.search(r"\bp\d", spans.nth(i).get_attribute("class"))}
        person.look(f"show-{mode}")
    assert coloured["full"] == set(range(spans.count()))
    assert not coloured["most"] & coloured["least"]
    page.select_option("#show", "full")
    box = spans.nth(1).locator("i").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#token:visible")
    person.look("token")
    told = page.inner_text("#token")
    shares = [
        float(share) for share in re.findall(r"([\d.]+)%", told.partition("logprob")[2].partition("The top five")[0])
    ]
    covered = float(re.search(r"top five cover ([\d.]+)%", told)[1])
    assert 5 <= len(shares) <= 6
    assert sum(shares[:5]) == pytest.approx(covered, abs=0.1)
    page.locator("#token button:not([disabled])").last.click()
    person.finished()
    branched = person.text
    assert branched != written
    page.keyboard.press("Control+z")
    assert person.text == written
    page.keyboard.press("Control+End")
    page.keyboard.press("Alt+ArrowDown")  # into the list of the token before the caret
    assert page.evaluate("document.activeElement.closest('#token') !== null")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "text"
    assert page.is_hidden("#token")


def test_presets_links_history_and_code(person, live) -> None:
    page = person.page
    page.select_option("#presets", label="Question and answer")
    assert person.text.startswith("Q: ")
    assert (page.input_value("#start"), page.input_value("#stops")) == ("\\nA:", "\\n")
    asked = "Q: Why?"
    page.fill("#text", asked)
    page.fill("#stops", "")
    page.fill("#max_tokens", "8")
    person.page.focus("#text")
    page.keyboard.press("Control+Enter")
    person.until(lambda: "tokens in" in person.status)
    person.finished()
    assert person.text.startswith(asked + "\nA:")  # injected before what the model writes
    assert person.text.endswith("\n\nQ: ")  # and after it
    page.click("#save")
    page.fill("#dialog-body input", "mine")
    page.keyboard.press("Enter")
    kept = person.text
    page.fill("#text", "other")
    page.fill("#temperature", "1.5")
    page.select_option("#presets", label="mine")
    assert (person.text, page.input_value("#temperature")) == (kept, "0")
    page.click("#share")
    link = page.input_value("#dialog-body input")
    person.look("share")
    page.keyboard.press("Escape")
    other = person.window.new_page()
    other.goto(link)
    other.wait_for_selector("#model option", state="attached")
    assert other.input_value("#text") == kept
    assert other.input_value("#start") == "\\nA:"
    assert "#" not in other.url
    other.close()
    page.click("#history")
    person.look("history")
    page.locator("#dialog-body .entry").first.click()
    assert person.text == asked + "\nA:"
    page.click("#code")
    curl = page.inner_text("#dialog-body pre")
    body = json.loads(re.search(r"-d '(.*)'", curl, re.DOTALL)[1].replace("'\\''", "'"))
    assert live.ask("/v1/completions", body)[0] == 200
    page.get_by_role("button", name="Python").click()
    code = page.inner_text("#dialog-body pre")
    person.look("code")
    compile(code, "shown", "exec")
    assert "client.completions.create(" in code


def test_errors_are_told_in_place(browser, language_model) -> None:
    with serving(language_model, api_key="secret") as live:
        window = browser.new_context(viewport=DESK)
        page = window.new_page()
        page.goto(live.url)
        page.fill("#dialog-body input", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#model option", state="attached")
        page.fill("#text", "word " * 400)
        page.click("#submit")
        page.wait_for_selector("#problem:visible")
        assert "maximum context length" in page.inner_text("#problem")
        if folder := os.environ.get("GPT3_SCREENSHOTS"):
            page.screenshot(path=str(Path(folder) / "error.png"))
    page.fill("#text", "The sea")
    page.click("#submit")
    page.get_by_text("cannot be reached").wait_for()
    page.wait_for_selector("#submit:visible")
    window.close()


def test_phone_width_and_dark(browser, live) -> None:
    person = Person(browser, live.url, PHONE, color_scheme="dark", device_scale_factor=2)
    page = person.page
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"  # as the system has it
    person.write("The sea")
    person.look("phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#toggle-settings")
    page.select_option("#show", "full")
    person.look("phone-settings")
    page.click("#toggle-settings")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#shades .t i").first.wait_for()
    box = page.locator("#shades .t i").nth(2).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#token:visible")
    person.look("phone-token")
    card = page.locator("#token").bounding_box()
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= PHONE["width"]
    small = page.evaluate(
        "[...document.querySelectorAll('#bar button, nav button')].filter(e => e.offsetParent && e.offsetHeight < 40).length"
    )
    assert small == 0
    page.click("#toggle-more")
    person.look("phone-more")
    page.click("#theme")
    person.open(live.url)
    assert page.evaluate("document.documentElement.dataset.theme") == "light"  # kept
    assert not person.faults
    person.window.close()


def test_a_conversation(browser, language_model) -> None:
    language_model.tokenizer.chat_template = TEMPLATE
    try:
        with serving(language_model) as live:
            person = Person(browser, live.url)
            page = person.page
            page.click("#mode-chat")
            page.fill("#max_tokens", "8")
            page.fill("#say", "Hello")
            page.keyboard.press("Enter")
            page.wait_for_selector("#talk li.assistant")
            person.finished()
            person.look("chat")
            assert page.locator("#talk li").count() == 2
            page.click("#undo")
            assert page.input_value("#say") == "Hello"
            assert not person.faults
            person.window.close()
    finally:
        language_model.tokenizer.chat_template = None

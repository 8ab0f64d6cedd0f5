"""The Playground driven in headless Chromium as a person does (-m slow). GPT3_SCREENSHOTS=FOLDER keeps pictures to look at."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest
from browsing import DESK, PHONE, Person
from live_server import TEMPLATE, fixtures, serving, slowed

from gpt3.inference.language_model import LanguageModel, make_engine

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
    person.until(lambda: "".join(person.marked(".t")) == written[len("The") :])  # a person's own text, too
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
    made = person.text.removesuffix("\n\nQ: ")
    page.click("#save")
    page.fill("#dialog-body input", "mine")
    page.keyboard.press("Enter")
    kept = person.text
    page.fill("#text", "other")
    page.fill("#temperature", "1.5")
    page.select_option("#presets", label="mine")
    assert (person.text, page.input_value("#temperature")) == (kept, "0")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as by http from elsewhere
    page.click("#share")
    link = page.input_value("#dialog-body input")
    page.locator("#dialog-body").get_by_role("button", name="Copy").click()
    page.wait_for_selector("text=Copied")
    person.look("share")
    page.keyboard.press("Escape")
    page.click("#save")
    page.fill("#dialog-body input", "")
    page.keyboard.press("Control+v")
    assert page.input_value("#dialog-body input") == link[:200]  # as long as a name may be
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
    assert person.text == made
    assert "".join(person.marked(".written")) == made.removeprefix(asked + "\nA:")
    page.click("#code")
    curl = page.inner_text("#dialog-body pre")
    body = json.loads(re.search(r"-d '(.*)'", curl, re.DOTALL)[1].replace("'\\''", "'"))
    assert live.ask("/v1/completions", body)[0] == 200
    page.get_by_role("button", name="Python").click()
    code = page.inner_text("#dialog-body pre")
    person.look("code")
    compile(code, "shown", "exec")
    assert "client.completions.create(" in code
    page.keyboard.press("Escape")
    page.evaluate("for (let size = 5e6; size >= 1; size /= 2) try { localStorage[size] = 'x'.repeat(size); } catch {}")
    page.click("#save")
    page.fill("#dialog-body input", "one more")
    page.keyboard.press("Enter")
    person.until(lambda: "no space left" in page.inner_text("#problem"))
    assert page.locator("#presets option").all_inner_texts()[-1] == "mine"


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


def test_lengths_are_limited_to_the_context(person) -> None:
    """ "A story" asks for 200 tokens, more than the whole context of this model."""
    page = person.page
    page.select_option("#presets", label="A story")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    person.until(lambda: "tokens in" in person.status)
    assert page.is_hidden("#problem")
    assert person.status.endswith("the context is full")
    page.wait_for_timeout(500)
    person.faults.clear()  # what a random model writes may be more tokens when it is counted


def test_undo_undoes_a_preset_as_a_whole(person) -> None:
    page = person.page
    page.fill("#text", "mine")
    page.fill("#temperature", "1.5")
    settings = ("#text", "#stops", "#start", "#restart", "#temperature", "#max_tokens", "#show")
    before = [page.input_value(field) for field in settings]
    page.select_option("#presets", label="Arithmetic")
    preset = [page.input_value(field) for field in settings]
    assert preset[1] == "\\n"
    page.select_option("#presets", label="A story")
    page.click("#undo")
    assert [page.input_value(field) for field in settings] == preset
    page.click("#undo")
    assert [page.input_value(field) for field in settings] == before
    assert page.input_value("#presets") == ""
    page.click("#redo")
    assert [page.input_value(field) for field in settings] == preset


def test_text_settings_and_history_survive_a_reload(person, live) -> None:
    page = person.page
    page.fill("#max_tokens", "8")
    page.fill("#stops", "END")
    page.select_option("#show", "full")
    written = person.write("The sea")
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert person.text == written
    assert (page.input_value("#max_tokens"), page.input_value("#stops")) == ("8", "END")
    assert "".join(person.marked(".t")).endswith(written[len("The sea") :])
    page.fill("#text", "other")
    page.fill("#stops", "")
    page.click("#history")
    page.locator("#dialog-body .entry").first.click()
    assert (person.text, page.input_value("#stops")) == (written, "END")


def test_the_text_a_person_typed_has_colours_too(person, live) -> None:
    page = person.page
    page.fill("#text", "The sea was naïve 🎉.")
    page.select_option("#show", "full")
    logprobs = live.complete(prompt=person.text, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]
    levels: dict[int, float] = {}
    for offset, logprob in list(zip(logprobs["text_offset"], logprobs["token_logprobs"], strict=True))[1:]:
        levels[offset] = levels.get(offset, 0) + logprob
    expected = [f"t p{sum(math.exp(level) >= bound for bound in (0.05, 0.25, 0.5, 0.8))}" for level in levels.values()]
    shown = "[...document.querySelectorAll('#shades .t')].map((mark) => mark.className)"
    person.until(lambda: page.evaluate(shown) == expected)
    assert "".join(person.marked(".t")) == person.text[min(levels) :]


def test_two_models_continue_the_same_text(browser, language_model, tokenizer) -> None:
    other = fixtures.make_model(tokenizer, seed=5, max_position_embeddings=64)
    with serving({"one": language_model, "two": LanguageModel(other, tokenizer, make_engine(other, "fp32"))}) as live:
        person = Person(browser, live.url)
        page = person.page
        assert page.is_hidden("#second")
        page.select_option("#rival", "two")
        page.fill("#temperature", "0")
        page.fill("#max_tokens", "8")
        written = person.write("The sea")
        for text, name in ((written, "one"), (page.input_value("#second-text"), "two")):
            body = {"prompt": "The sea", "temperature": 0, "max_tokens": 8, "model": name}
            assert text == "The sea" + live.complete(**body)["choices"][0]["text"]
        page.select_option("#show", "full")
        assert page.locator("#second-shades .t").count() > 2
        person.look("compare")
        boxes = [page.locator(f"#{name}").bounding_box() for name in ("paper", "second")]
        assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
        assert boxes[0]["height"] == boxes[1]["height"] > 200
        page.set_viewport_size(PHONE)
        person.look("compare-phone")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.reload()
        person.until(lambda: page.input_value("#rival") == "two")
        page.set_viewport_size(DESK)
        page.select_option("#model", "two")
        page.reload()
        person.until(lambda: page.input_value("#model") == "two")
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
            for composing in ("isComposing: true", "keyCode: 229"):  # Enter that takes a word of an input method
                event = f"new KeyboardEvent('keydown', {{ key: 'Enter', bubbles: true, {composing} }})"
                page.evaluate(f"document.getElementById('say').dispatchEvent({event})")
            assert page.locator("#talk li.user").count() == 0
            page.keyboard.press("Enter")
            page.wait_for_selector("#talk li.assistant")
            person.finished()
            person.look("chat")
            assert page.locator("#talk li").count() == 2
            page.click("#undo")
            assert page.input_value("#say") == "Hello"
            for turn in range(5):  # far more than the context holds
                page.fill("#say", f"The sea, the sky and the captain of ship {turn}?")
                page.keyboard.press("Enter")
                person.until(lambda turn=turn: page.locator("#talk li.assistant").count() == turn + 1)
                person.finished()
                assert page.is_hidden("#problem")
            assert page.get_by_text("no longer sees the messages above").count() == 1
            assert page.locator("#talk li.unseen").count() in (2, 4, 6, 8)
            person.until(lambda: "128 tokens" in page.inner_text("#count"))
            person.look("chat-full")
            said = page.locator("#talk li.user, #talk li.assistant").all_inner_texts()
            page.reload()
            person.until(lambda: page.locator("#talk li.user").count() == 5)
            page.click("#new")
            assert page.locator("#talk li.user").count() == 0
            page.click("#history")
            page.locator("#dialog-body .entry").first.click()
            assert page.locator("#talk li.user, #talk li.assistant").all_inner_texts() == said
            page.click("#new")
            page.fill("#say", "word " * 200)  # fits no context
            page.keyboard.press("Enter")
            page.wait_for_selector("#problem:visible")
            assert page.input_value("#say").startswith("word word")  # not lost
            page.click("#history")
            page.locator("#dialog-body .entry").first.click()
            page.fill("#system", "word " * 200)
            page.click("#again")
            page.wait_for_selector("#problem:visible")
            assert page.locator("#talk li.user, #talk li.assistant").all_inner_texts() == said
            person.faults.clear()  # the console tells of the 400
            assert not person.faults
            person.window.close()
    finally:
        language_model.tokenizer.chat_template = None

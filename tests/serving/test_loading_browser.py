"""The Playground of a server that has no model yet, in headless Chromium (-m slow)."""

from __future__ import annotations

import pytest
from browsing import DESK, PHONE, Person
from live_server import CONTEXT, save_model, serving

from gpt3.errors import InputError
from gpt3.serving import catalog

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_model_is_chosen_and_writes_without_a_restart(
    browser, tokenizer, language_model, tmp_path, monkeypatch, size
) -> None:
    """The first fails, the second comes, a third joins it."""
    for name in ("demo", "other"):
        save_model(tokenizer, tmp_path / "runs" / name / "model", max_position_embeddings=CONTEXT)
    monkeypatch.chdir(tmp_path)

    def fetch(name: str) -> None:
        raise InputError(f"{name}: the hub cannot be reached")

    monkeypatch.setattr(catalog.locate, "fetch", fetch)
    with serving({}, model=[]) as live:
        person = Person(browser, live.url, size)
        page, name = person.page, "phone" if size is PHONE else "desk"
        person.until(lambda: page.inner_text("#none p") == "No model is loaded yet.")
        settings = page.locator("#toggle-settings")  # on a phone they lie over the text
        if size is PHONE:
            settings.click()
        page.fill("#max_tokens", "16")
        if size is PHONE:
            settings.click()
        page.fill("#text", "The sea")
        person.look(f"no-model-{name}")
        page.keyboard.press("Control+Enter")  # as the button
        person.until(lambda: page.is_visible("#dialog"))
        person.look(f"choose-{name}")
        titles = page.locator("#dialog-body .entry b").all_inner_texts()
        assert titles[:2] == ["demo", "other"]
        assert "gpt2" in titles
        page.locator("#dialog-body").get_by_role("button", name="distilgpt2").click()
        person.until(lambda: "distilgpt2 was not loaded: distilbert/distilgpt2: the hub" in page.inner_text("#problem"))
        page.click("#choose")
        assert "the hub cannot be reached" in page.inner_text("#dialog-body .bad")
        person.look(f"failed-{name}")
        page.locator("#dialog-body").get_by_role("button", name="demo").click()
        person.until(lambda: page.input_value("#model") == "demo")
        person.until(lambda: person.status == "demo is loaded")
        assert page.is_hidden("#none")
        assert page.is_hidden("#problem")
        assert person.text == "The sea"  # typed before
        assert len(person.write("The sea")) > len("The sea")
        person.look(f"loaded-{name}")
        if size is PHONE:
            settings.click()
        page.click("#load")
        page.locator("#dialog-body").get_by_role("button", name="other").click()
        person.until(lambda: page.input_value("#model") == "other")
        person.look(f"another-{name}")
        assert page.locator("#rival option").all_inner_texts() == ["No other model", "demo", "other"]
        if size is PHONE:
            settings.click()
        assert len(person.write("The sea")) > len("The sea")
        assert not person.faults
        person.window.close()


def test_a_run_that_another_page_loaded_appears_here(browser, tokenizer, language_model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with serving({}, model=[]) as live:
        person = Person(browser, live.url)
        save_model(tokenizer, tmp_path / "runs" / "demo" / "model", max_position_embeddings=CONTEXT)
        assert live.ask("/v1/models/load", {"model": "demo"})[0] == 200
        person.until(lambda: person.page.input_value("#model") == "demo")
        assert len(person.write("The sea")) > len("The sea")
        assert not person.faults
        person.window.close()

"""The Playground for those who use no mouse, or read with a screen reader, or see contrasts badly (-m slow)."""

from __future__ import annotations

import pytest
from browsing import DESK, PHONE, Person
from live_server import TEMPLATE, serving

pytestmark = pytest.mark.slow

CONTROLS = {"button", "textbox", "combobox", "slider", "spinbutton", "link", "checkbox", "dialog", "DisclosureTriangle"}
CONTRASTS = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const faded = (element) => element.closest(":disabled") !== null;  // which WCAG leaves out
  const found = [];
  const note = (what, ink, below) => found.push([what, ratio(over(ink, below), below)]);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || faded(element) || element.closest(".shades, .hidden, noscript")) continue;
    note(text.slice(0, 40), parse(getComputedStyle(element).color), ground(element));
  }
  for (const field of document.querySelectorAll("input:not([type=range]), textarea, select")) {
    if (!field.checkVisibility() || faded(field)) continue;
    note(`#${field.id}`, parse(getComputedStyle(field).color), ground(field));
    if (field.placeholder) note(`#${field.id} placeholder`, parse(getComputedStyle(field, "::placeholder").color), ground(field));
  }
  const ink = parse(getComputedStyle(document.querySelector("#text")).color), paper = ground(document.querySelector("#paper"));
  for (const word of document.querySelectorAll("#shades i"))
    note(word.parentElement.className, ink, over(parse(getComputedStyle(word).backgroundColor), paper));
  return found;
}"""
FOCUS = """() => {
  const element = document.activeElement, style = getComputedStyle(element.id === "text" ? element.parentElement : element);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return [element.id || element.textContent.trim(), element.id === "text" ? style.boxShadow !== "none" : outlined];
}"""
REACHABLE = """() => [...document.querySelectorAll("button, select, input, textarea, a, summary")]
  .filter((element) => element.checkVisibility() && !element.disabled && element.tabIndex >= 0 && !element.closest("[inert]"))
  .map((element) => element.id || element.textContent.trim())"""


def nameless(person: Person) -> list[str]:
    """Roles of what a screen reader would call nothing, as Chromium tells it."""
    client = person.window.new_cdp_session(person.page)
    client.send("Accessibility.enable")
    nodes = client.send("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(found) >= 3
    return [str(node) for node in found if not node["name"]["value"].strip()]


def states(person: Person):
    """The page in each of its states."""
    page = person.page
    yield "empty"
    page.locator("#rarer summary").click() if page.is_visible("#settings") else None
    page.fill("#text", "word " * 400)
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#problem:visible")
    person.until(lambda: page.inner_text("#count").startswith("more than"))
    yield "error"
    for mode in ("off", "full"):
        page.evaluate(f"document.querySelector('#show').value = '{mode}'")
        page.evaluate("document.querySelector('#show').dispatchEvent(new Event('change'))")
        person.write("The sea")
        yield f"probabilities {mode}"
    page.focus("#text")
    page.keyboard.press("End")
    page.keyboard.press("Alt+ArrowDown")
    page.wait_for_selector("#token:visible")
    yield "token"
    page.keyboard.press("Escape")
    for name in ("share", "history", "code", "save"):
        if page.is_visible("#toggle-more"):
            page.click("#toggle-more")
            yield "more"
        page.click(f"#{name}")
        yield name
        page.keyboard.press("Escape")
    if page.is_visible("#toggle-settings"):
        page.click("#toggle-settings")
        yield "settings"
        page.click("#toggle-settings")
    page.click("#mode-chat")
    yield "chat, empty"
    page.evaluate("document.querySelector('#max_tokens').value = 8")
    page.fill("#say", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector("#talk li.assistant")
    person.finished()
    yield "chat"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_control_has_a_name_and_every_text_a_contrast_of_wcag_aa(browser, language_model, theme, size) -> None:
    language_model.tokenizer.chat_template = TEMPLATE
    try:
        with serving(language_model) as live:
            person = Person(browser, live.url, size, color_scheme=theme, reduced_motion="reduce")
            seen = set()
            for state in states(person):
                seen.add(state)
                assert not nameless(person), state
                found = person.page.evaluate(CONTRASTS)
                assert len(found) > 10, state
                assert not [(what, round(ratio, 2)) for what, ratio in found if ratio < 4.5], state
                wide = person.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, state
            assert len(seen) >= 11
            person.window.close()
    finally:
        language_model.tokenizer.chat_template = None


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_keys_reach_everything_and_show_where_they_are(browser, live, size) -> None:
    person = Person(browser, live.url, size)
    page = person.page

    def walk() -> list[str]:
        reached: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            name, shown = page.evaluate(FOCUS)
            if name in reached:
                break
            if name and page.evaluate("document.activeElement !== document.body"):
                assert shown, f"{name} does not show that it has the focus"
                reached.append(name)
        return reached

    assert set(walk()) >= set(page.evaluate(REACHABLE)) - {"mode-chat"}  # no template, so not to be chosen
    if size is PHONE:
        page.focus("#toggle-settings")
        page.keyboard.press("Enter")
        reached = walk()
        assert {"model", "temperature", "seed"} <= set(reached)
        assert not {"text", "submit"} & set(reached)  # they lie under it
        page.keyboard.press("Escape")
        assert page.get_attribute("#toggle-settings", "aria-expanded") == "false"
        page.focus("#toggle-more")
        page.keyboard.press("Enter")
    page.focus("#code")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dialog[open]")
    assert page.evaluate("document.activeElement.closest('#dialog') !== null")
    page.keyboard.press("Escape")
    assert page.is_hidden("#dialog")
    if size is DESK:
        assert page.evaluate("document.activeElement.id") == "code"  # back where it was
    page.focus("#begin button")
    page.keyboard.press("Enter")
    assert person.text.startswith("Q: ")
    assert page.evaluate("document.activeElement.id") == "text"
    assert page.is_hidden("#begin")
    page.keyboard.press("Control+z")
    assert person.text == ""
    assert page.is_visible("#begin")
    person.window.close()


def test_what_changes_the_text_takes_the_error_away_and_another_text_is_written_from_where_it_began(
    browser, live
) -> None:
    person = Person(browser, live.url)
    page = person.page
    page.fill("#text", "word " * 400)
    page.click("#submit")
    page.wait_for_selector("#problem:visible")
    page.fill("#text", "The sea")
    assert page.is_hidden("#problem")
    page.select_option("#show", "full")
    page.fill("#max_tokens", "12")
    assert page.is_disabled("#again")
    person.write("The sea")
    assert page.is_enabled("#again")
    box = page.locator("#shades .t i").nth(3).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#token:visible")
    page.locator("#token button:not([disabled])").last.click()
    person.until(lambda: "tokens in" in person.status)
    person.finished()
    kept = page.evaluate("text.value.slice(0, shades.querySelectorAll('.t')[3].dataset.end)")  # the branch's beginning
    for _ in range(2):  # from the branch, not from the beginning
        page.click("#again")
        person.until(lambda: "tokens in" in person.status)
        person.finished()
        assert person.text.startswith(kept)
    assert not [fault for fault in person.faults if "400" not in fault]
    person.window.close()

"""`gpt3 score`: its figures, its tokens, its page, and what it refuses."""

import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.cli import main as cli
from gpt3.cli.score import ScoreOptions
from gpt3.errors import InputError
from gpt3.inference import score_view, scoring
from gpt3.inference.language_model import LanguageModel, load
from gpt3.inference.score_view import page, span
from gpt3.inference.scoring import Alternative, TextScore, TokenScore, encode_texts, score_tokens
from gpt3.inference.torch_engine import ReferenceEngine
from gpt3.model_folder.load import load_transformers

ASSETS = Path(score_view.__file__).parent / "assets"
TEXT = "The captain looked at the sky.\n你好，世界 🎉 <b>naïve</b> & café\n"


@pytest.fixture
def files(home):
    (home / "a.txt").write_text(TEXT, encoding="utf-8", newline="")
    (home / "b.txt").write_bytes(b"\xef\xbb\xbf" + ("Once upon a time there was a sea. " * 40).encode())
    return home


def said(capfd, *words):
    assert cli.main(["score", *words]) == 0
    return capfd.readouterr()


def records(capfd, *words):
    return [json.loads(line) for line in said(capfd, *words, "--json").out.splitlines()]


def test_the_table_holds_the_figures_of_transformers_forward(files, capfd):
    out, err = said(capfd, "a.txt")
    model, tokenizer = load_transformers()
    ids = tokenizer(TEXT)["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0, :-1, : len(tokenizer)]
    nats = float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum"))
    size = len(TEXT.encode())
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == list(score_view.COLUMNS)
    name, tokens, size_shown, characters, loss, perplexity, per_byte, per_token = lines[1]
    assert (name, int(tokens), int(size_shown), int(characters)) == ("a.txt", len(ids), size, len(TEXT))
    assert float(loss) == pytest.approx(nats / len(ids), abs=1e-3)
    assert float(perplexity.replace(",", "")) == pytest.approx(math.exp(nats / len(ids)), rel=1e-3)
    assert float(per_byte) == pytest.approx(nats / math.log(2) / size, abs=1e-3)
    assert float(per_token) == pytest.approx(nats / math.log(2) / len(ids), abs=1e-3)
    assert f"model: {Path('runs') / 'demo' / 'model'}" in err


def test_totals_are_sums_over_texts(files, capfd):
    *parts, total = records(capfd, "a.txt", "b.txt", "--text", "And more.", "--context", "60", "--stride", "7")
    assert [part["file"] for part in parts] == ["a.txt", "b.txt", "--text"]
    assert total["files"] == 3
    for key in ("tokens", "bytes", "characters", "nats"):
        assert total[key] == pytest.approx(sum(part[key] for part in parts))
    assert total["loss"] == pytest.approx(total["nats"] / total["tokens"])
    assert parts[1]["bytes"] == 34 * 40  # without the byte order mark
    assert said(capfd, "a.txt", "b.txt").out.splitlines()[-1].startswith("total")


def test_context_and_stride_reach_the_windows(files, capfd):
    model, tokenizer = load_transformers()
    (ids,) = encode_texts(tokenizer, [("b.txt", "Once upon a time there was a sea. " * 40)])
    for context, stride in ((40, 10), (40, 40), (256, 128)):
        (record,) = records(capfd, "b.txt", "--context", str(context), "--stride", str(stride))
        truth = score_tokens(ReferenceEngine(model), [tokenizer.eos_token_id, *ids], context, stride)
        assert record["nats"] == pytest.approx(-truth.total, rel=1e-4)
    assert records(capfd, "b.txt")[0] == record  # the whole context, half of it as stride


def test_int8_weights_score_nearly_as_full_ones(files, capfd):
    (full,), (small,) = records(capfd, "b.txt"), records(capfd, "b.txt", "--quantize", "int8")
    assert small["loss"] != full["loss"]
    assert small["loss"] == pytest.approx(full["loss"], rel=0.05)


def test_tokens_as_json(files, capfd):
    (record,) = records(capfd, "a.txt", "--tokens")
    tokens = record["per_token"]
    assert len(tokens) == record["tokens"]
    assert "".join(token["text"] for token in tokens) == TEXT
    assert [token["end"] for token in tokens[:-1]] == [token["start"] for token in tokens[1:]]
    assert (tokens[0]["start"], tokens[-1]["end"]) == (0, len(TEXT.encode()))
    assert -sum(token["logprob"] for token in tokens) == pytest.approx(record["nats"], rel=1e-5)
    for token in tokens:
        top = token["top"]
        assert len(top) == 5
        assert [each["logprob"] for each in top] == sorted((each["logprob"] for each in top), reverse=True)
        if token["rank"] <= 5:
            assert top[token["rank"] - 1]["id"] == token["id"]
            assert top[token["rank"] - 1]["logprob"] == pytest.approx(token["logprob"], abs=1e-4)
        else:
            assert token["logprob"] <= top[-1]["logprob"]
    assert record["accuracy"] == sum(token["rank"] == 1 for token in tokens) / len(tokens)


def test_standard_input_and_line_ends_as_they_are(home, capfd, pipe_in):
    pipe_in(b"one\r\ntwo\r\n")
    (record,) = records(capfd, "-", "--tokens")
    assert record["file"] == "standard input"
    assert "".join(token["text"] for token in record["per_token"]) == "one\r\ntwo\r\n"


def test_in_python(home):
    model, tokenizer = load_transformers()
    reference = LanguageModel(model, tokenizer).score(TEXT)
    found = load().score(TEXT, top=2)
    assert found.loss == pytest.approx(reference.loss, rel=1e-4)
    assert "".join(token.text for token in found.tokens) == TEXT
    assert found.loss == pytest.approx(-sum(token.logprob for token in found.tokens) / len(found.tokens), rel=1e-6)
    assert reference.tokens == []
    assert repr(reference).startswith(f"TextScore({reference.count} tokens, {len(TEXT.encode())} bytes: loss ")
    assert f"perplexity {reference.perplexity:,.2f}, {reference.bits_per_byte:.4f} bits per byte" in repr(reference)
    assert repr(TextScore()) == "TextScore(no tokens)"


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["a.txt", "empty.txt", "bom.txt"], ["empty.txt is empty", "bom.txt is empty"]),
        (["latin.txt", "none.txt"], ["latin.txt is not UTF-8 at byte 4", "none.txt cannot be read"]),
        (["marked.txt"], ["marked.txt is not UTF-8 at byte 6"]),
        (["--text", ""], ["--text is empty"]),
        (["a.txt", "--context", "257"], ["--context 257", "256"]),
        (["a.txt", "--stride", "257"], ["--stride 257", "256"]),
        (["a.txt", "--stride", "0", "--context", "0"], ["--stride 0 must be", "--context 0 must be"]),
        (["a.txt", "--tokens"], ["--tokens", "--json"]),
        (["a.txt", "--html", "runs"], ["--html runs"]),
        (["--text", "a", "--html", "a.txt"], ["--html a.txt exists", "replace this one with --overwrite"]),
        (["a.txt", "--html", "a.txt"], ["--html a.txt is a text to score"]),
        (["a.txt", "--html", "./a.txt", "--overwrite"], ["--html ./a.txt is a text to score"]),
        (["The sea was calm."], ["The sea was calm. cannot be read", "or the text itself with --text"]),
        (["A long text. " * 99], ["cannot be read", "or the text itself with --text"]),
        (["a.txt", "-", "-"], ["standard input", "twice"]),
        (["a.txt", "--quantize", "int3"], ["--quantize int3", "none, int8, int4"]),
        (["a.txt", "--color", "sometimes"], ["--color sometimes", "auto, always, never"]),
    ],
)
def test_bad_input_is_one_line(files, capfd, words, needles):
    (files / "empty.txt").touch()
    (files / "bom.txt").write_bytes(b"\xef\xbb\xbf")
    (files / "latin.txt").write_bytes(b"cafe\xe9 noir")
    (files / "marked.txt").write_bytes(b"\xef\xbb\xbfabc\xff")
    assert cli.main(["score", *words]) == 2
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("model: ")]
    assert len(lines) == 1, err
    assert all(needle in lines[0] for needle in needles), lines[0]
    assert out == ""


def test_contradictions_are_looked_for_among_values_of_the_right_types():
    with pytest.raises(InputError) as caught:
        ScoreOptions(text="x", context="many", stride=5, files=3)
    assert str(caught.value) == "--files 3 must be a list; --context many must be a whole number of at least 1"


def test_figures_of_texts_done_before_an_interrupt(files, capfd, monkeypatch):
    whole = scoring.score_chunks

    def interrupted(engine, ids, *arguments, **keywords):
        if len(ids) > 100:
            raise KeyboardInterrupt
        return whole(engine, ids, *arguments, **keywords)

    monkeypatch.setattr(scoring, "score_chunks", interrupted)
    assert cli.main(["score", "a.txt", "b.txt"]) == 130
    assert capfd.readouterr().out.splitlines()[-1].startswith("a.txt ")
    assert cli.main(["score", "a.txt", "b.txt", "--json", "--tokens"]) == 130
    whole_text, cut = map(json.loads, capfd.readouterr().out.splitlines())
    assert whole_text["tokens"] == len(whole_text["per_token"])
    assert cut == {"file": "b.txt", "per_token": []}


def test_colors_hold_the_text_and_nothing_that_moves_the_cursor(files, capfd):
    out, _ = said(capfd, "a.txt", "--text", "ring \x07 bell \x1b[2J", "--color", "always")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert plain.startswith("probability:  50% and more ")
    assert "The captain looked at the sky.↵\n" in plain
    assert "你" in plain
    assert "ring ␇ bell ␛[2J" in plain
    assert "\x1b" not in plain
    assert "\x1b" not in said(capfd, "a.txt").out  # no terminal, so no colours


def test_auto_shows_colors_on_a_terminal_where_they_are_wanted(files, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown(*words):
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert cli.main(["score", *words]) == 0
        return "\x1b" in sys.stdout.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown("a.txt")
    assert not shown("a.txt", "--color", "never")
    assert not shown("a.txt", "--json")
    (files / "long.txt").write_text(TEXT * 60, encoding="utf-8")
    assert not shown("long.txt")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shown("a.txt")


class Reader(HTMLParser):
    """The text of each `.text` box, every tag, and every address anything would be loaded from."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.tags, self.addresses, self._depth, self.scripts, self._script = [], [], [], 0, [], False

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for key, value in attributes if key in ("src", "href", "action", "data")]
        if self._depth and tag == "div":
            self._depth += 1
        if ("class", "text") in attributes:
            self._depth = 1
            self.boxes.append("")
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        if self._depth and tag == "div":
            self._depth -= 1
        self._script = False

    def handle_data(self, data):
        if self._depth:
            self.boxes[-1] += data
        if self._script:
            self.scripts[-1] += data


def test_the_page_holds_the_text_and_loads_nothing(files, capfd):
    (files / "<i>&amp;.txt").write_text("</div></script><script>alert(1)</script> &lt; <!--", encoding="utf-8")
    said(capfd, "a.txt", "<i>&amp;.txt", "--html", "out/score.html")
    page = (files / "out" / "score.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.boxes == [TEXT, "</div></script><script>alert(1)</script> &lt; <!--"]
    assert reader.addresses == []
    assert reader.tags.count("script") == 2
    assert "alert(1)</script>" not in page
    assert "<i>&amp;.txt" not in page
    assert not re.search(r"https?://|url\(|@import", page)
    data = json.loads(reader.scripts[0])
    assert len(data["texts"]) == 2
    for _, start, end, logprob, rank, _, ids, logprobs in data["texts"][0]:
        assert start < end
        assert rank >= 1
        assert len(ids) == len(logprobs) == 5
        assert logprob <= logprobs[0] + 1e-3
        assert all(str(each) in data["names"] for each in ids)


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=20), name=st.text(min_size=1, max_size=8))
def test_no_text_escapes_into_the_page(text, name):
    tokens = [TokenScore(text, 3, 0, 1, -0.5, 1, 0.2, (Alternative(4, text, -0.2),))]
    reader = Reader()
    reader.feed(page(name, [(name, TextScore(1, 1, 1, 0.5, 1, tokens))]))
    assert reader.boxes == [score_view.visible(text)]
    assert reader.tags.count("script") == 2
    assert json.loads(reader.scripts[0])["names"] == {"4": score_view.visible(text)}


def test_a_long_text_is_drawn_in_part_and_says_so(files, capfd, monkeypatch):
    monkeypatch.setattr(score_view, "MOST_TOKENS", 50)
    said(capfd, "a.txt", "b.txt", "--html", "score.html")
    page = (files / "score.html").read_text(encoding="utf-8")
    assert page.count('<span class="t s') == 50 + len(score_view.LEGEND)
    assert re.search(r"The first \d+ of \d+ tokens are drawn", page)


def test_a_token_within_a_character_has_a_mark_of_its_own():
    assert span(TokenScore("", 3, 0, 1, -9.0, 1, 0.2)) == '<span class="t s5"><i class="p"></i></span>'
    assert span(TokenScore("\n", 3, 0, 1, -0.1, 1, 0.2)) == '<span class="t s0"><i class="n"></i>\n</span>'


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_text_has_the_contrast_that_wcag_aa_asks_for():
    css = (ASSETS / "score.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in css.split("* {")[0].split("@media"))
    for theme in (light, dark):
        for index in range(len(score_view.SHADES)):
            assert contrast(theme[f"b{index}"], theme[f"i{index}"]) >= 4.5, (theme["page"], index)
        assert contrast(theme["soft"], theme["page"]) >= 4.5
        assert contrast(theme["soft"], theme["card"]) >= 4.5
        assert contrast(theme["accent"], theme["card"]) >= 3
        assert contrast(theme["ink"], theme["bar"]) >= 4.5
    for background, ink in zip(score_view.BACKGROUNDS, score_view.INKS, strict=True):
        assert contrast(background, ink) >= 4.5

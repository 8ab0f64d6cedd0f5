"""Whatever the tokens and the stop strings, the pieces joined are the decoded text up to the first stop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gpt3.errors import InputError
from gpt3.inference.streaming import TextStream, TokenBytes

quick = settings(deadline=None, max_examples=200)
few_letters = st.text("ab c", max_size=25)  # so that stop strings do occur, overlap and nearly occur
stops_lists = st.lists(st.text("ab c", min_size=1, max_size=5), max_size=4)


@pytest.fixture(scope="module")
def token_bytes(tokenizer):
    return TokenBytes(tokenizer)


@pytest.fixture(scope="module")
def byte_ids(tokenizer, token_bytes):
    """The id of every single byte."""
    ids = {token_bytes[token]: token for token in range(256)}
    return {byte: ids[bytes([byte])] for byte in range(256)}


def pieces_of(token_bytes, tokens, stops=()) -> list[str]:
    stream = TextStream(token_bytes, stops)
    pieces = [stream.push(token) for token in tokens]
    pieces.append(stream.finish())
    assert stream.text == "".join(pieces)
    return pieces


def up_to_first_stop(text: str, stops: list[str]) -> str:
    """The oracle: grow the text by one character at a time until it ends in a stop; take the longest such stop off."""
    for end in range(1, len(text) + 1):
        here = [stop for stop in stops if text[:end].endswith(stop)]
        if here:
            return text[: end - max(map(len, here))]
    return text


@quick
@given(data=st.data())
def test_any_tokens_and_stops(data, tokenizer, token_bytes):
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    spans = st.integers(0, max(0, len(text) - 1)).flatmap(lambda i: st.integers(1, 4).map(lambda n: text[i : i + n]))
    stops = (
        data.draw(st.lists(st.one_of(st.text(min_size=1, max_size=3), spans.filter(bool)), max_size=3)) if text else []
    )
    assert "".join(pieces_of(token_bytes, tokens, stops)) == up_to_first_stop(text, stops)


@quick
@given(st.binary(max_size=40))
def test_any_bytes(byte_ids, token_bytes, content):
    assert "".join(pieces_of(token_bytes, [byte_ids[byte] for byte in content])) == content.decode("utf-8", "replace")


@quick
@given(st.text(max_size=20))
def test_real_text_never_shows_half_a_character(byte_ids, token_bytes, text):
    """One byte a token: each piece is a whole character, at the byte that completes it."""
    pieces = pieces_of(token_bytes, [byte_ids[byte] for byte in text.encode("utf-8")])
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece] == list(text)


def test_an_incomplete_character_is_held_and_flushed_at_the_end(byte_ids, token_bytes):
    *first, last = "🎉".encode()
    stream = TextStream(token_bytes)
    assert [stream.push(byte_ids[byte]) for byte in first] == ["", "", ""]
    assert stream.push(byte_ids[last]) == "🎉"
    assert [stream.push(byte_ids[byte]) for byte in first] == ["", "", ""]
    assert stream.finish() == "\ufffd"


@quick
@given(st.lists(few_letters, max_size=8), stops_lists)
def test_stops_across_pieces(token_bytes, pieces, stops):
    stream = TextStream(token_bytes, stops)
    shown = ""
    for count, piece in enumerate(pieces, 1):
        shown += stream.show(piece)
        so_far = "".join(pieces[:count])
        assert shown + "" == up_to_first_stop(so_far, stops)[: len(shown)]
        if not stream.stopped:  # what is held back is the longest end that may become a stop, no more and no less
            held = next(
                (so_far[i:] for i in range(len(so_far)) if any(s.startswith(so_far[i:]) for s in stops)),
                "",
            )
            assert shown == so_far.removesuffix(held) if held else shown == so_far
    text = "".join(pieces)
    assert stream.stopped == any(stop in text for stop in stops)
    assert shown + stream.finish() == up_to_first_stop(text, stops)


def test_text_after_the_stop_is_never_shown(token_bytes):
    stream = TextStream(token_bytes, ["\n\n"])
    assert [stream.show(piece) for piece in ("Hello.", "\n", "\nQ: ", "more")] == ["Hello.", "", "", ""]
    assert stream.stopped
    assert stream.finish() == ""


def test_a_stop_that_did_not_come_is_shown(token_bytes):
    stream = TextStream(token_bytes, ["\n\n"])
    assert [stream.show(piece) for piece in ("a\n", "b", "\n")] == ["a", "\nb", ""]
    assert stream.finish() == "\n"


def test_special_tokens_have_no_text(tokenizer, token_bytes):
    ids = tokenizer("The sea", add_special_tokens=False)["input_ids"]
    assert "".join(pieces_of(token_bytes, [tokenizer.eos_token_id, *ids, tokenizer.eos_token_id])) == "The sea"


def test_text_that_spells_a_special_token_is_text(tokenizer, token_bytes):
    ids = tokenizer("a<|endoftext|>b", add_special_tokens=False)["input_ids"]
    assert "".join(pieces_of(token_bytes, ids)) == "a<|endoftext|>b"


def test_an_id_without_a_token_has_no_text(tokenizer, token_bytes):
    assert token_bytes.size == len(tokenizer)
    assert token_bytes[len(tokenizer) + 3] == b""


def test_added_tokens(tokenizer, tmp_path):
    """A chat marker is hidden, an added word is text, however its letters are spelled."""
    from tokenizers import AddedToken

    tokenizer.save_pretrained(tmp_path)
    more = AutoTokenizer.from_pretrained(tmp_path)
    more.add_tokens([AddedToken("<|user|>", special=True), AddedToken("日本 é", special=False)])
    table = TokenBytes(more)
    marker, word = len(tokenizer), len(tokenizer) + 1
    assert (table[marker], table[word], table.size) == (b"", "日本 é".encode(), len(tokenizer) + 2)


def test_another_kind_of_tokenizer_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(InputError, match="not a byte-level BPE"):
        TokenBytes(words)

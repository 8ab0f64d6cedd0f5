"""Tokens become text as they are made: whole characters only, and nothing that may turn out to be a stop string.

    token id ─ TokenBytes ─▶ bytes ─ UTF-8 decoder ─▶ whole characters ─ TextStream ─▶ text to show

The pieces a TextStream returns, joined, are the decoded tokens up to the first stop string, however the tokens fall.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers.decoders import ByteLevel

from gpt3.errors import InputError
from gpt3.tokenizer.gpt2 import alphabet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.tokenizer.plain import PlainTokenizer


class TokenBytes:
    """What each id of a byte-level BPE adds to the text: its bytes; nothing for special tokens such as end-of-text.

    Looked up when first asked for: a table of a whole vocabulary takes as long to make as ten tokens.

    Raises:
        InputError: the tokenizer is no byte-level BPE, so its tokens have no bytes of their own.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast | PlainTokenizer) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not isinstance(backend.decoder, ByteLevel):
            raise InputError(
                f"the tokenizer ({type(tokenizer).__name__}) is not a byte-level BPE, which text is made from here; "
                "use a model with a GPT-2 style tokenizer.json"
            )
        self._token_of = backend.id_to_token
        self._byte_of = {character: byte for byte, character in alphabet()}
        self._known = {
            number: b"" if token.special else token.content.encode("utf-8")
            for number, token in tokenizer.added_tokens_decoder.items()
        }
        self.size = max(len(tokenizer), *(number + 1 for number in self._known), 0)
        """One more than the largest id."""

    def __getitem__(self, token: int) -> bytes:
        known = self._known.get(token)
        if known is None:
            characters = self._token_of(token) or ""  # an id that the tokenizer has no token for
            known = self._known[token] = bytes(self._byte_of[character] for character in characters)
        return known


class TextStream:
    """A sample's text as it grows, up to the first stop string: the one that is complete first, and of several the longest.

    At any time it holds back only an incomplete character, and the longest end of the text that may begin a stop string.

    Args:
        token_bytes: of the tokenizer.
        stops: texts that end the sample.

    Attributes:
        decoded: whole characters so far, those of a stop string included.
        stopped: whether a stop string has come; the text is complete then.

    Example:
        >>> stream = TextStream(TokenBytes(tokenizer), stops=["\\n"])
        >>> "".join(stream.push(token) for token in tokens) + stream.finish()
    """

    def __init__(self, token_bytes: TokenBytes, stops: Sequence[str] = ()) -> None:
        self._token_bytes = token_bytes
        # replaces what can never become a character by U+FFFD at once, and waits for the rest of what still can
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops, self._longest = tuple(stops), max(map(len, stops), default=0)
        self._shown: list[str] = []
        self._held = ""
        self.decoded = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was returned so far."""
        return "".join(self._shown)

    def push(self, token: int) -> str:
        """Take the next token; return the text that can be shown now, "" where a character or a stop is incomplete."""
        text = self._decoder.decode(self._token_bytes[token])
        self.decoded += len(text)
        return self.show(text)

    def finish(self) -> str:
        """No more tokens come: return what was held back, an incomplete character as U+FFFD."""
        return self.show(self._decoder.decode(b"", final=True), last=True)

    def show(self, text: str, last: bool = False) -> str:
        """Take the next piece of text; return what may be shown of it and of what was held back, if it is the last one all."""
        if self.stopped:
            return ""
        text = self._held + text
        hits = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        self.stopped = bool(hits)
        end = min(hits)[1] if hits else len(text) if last else len(text) - self._hold(text)
        self._held = "" if hits else text[end:]
        self._shown.append(text[:end])
        return text[:end]

    def _hold(self, text: str) -> int:
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0

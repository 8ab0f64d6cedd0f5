"""GPT-2's (and GPT-3's) byte-level BPE from the package's own data, and the frame that tokenizers trained here share with it.

256 bytes, then merges, then end-of-text; GPT-2's split into words. Source: Radford et al. 2019, section 2.2 (byte-level BPE, no
merges across character categories); Brown et al. 2020 reuse it unchanged. `data/vocab.bpe` is OpenAI's published merge list
(MIT), byte for byte: with its 50,000 merges end-of-text is id 50256.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
# The published pattern; Hugging Face's ByteLevel pre-tokenizer has it built in (`use_regex=True`). `\p{…}` needs the
# `regex` package or a library's own engine, not `re`.
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@cache
def alphabet() -> tuple[tuple[int, str], ...]:
    """The 256 bytes in id order, each with the printable character that stands for it in vocabulary files.

    Bytes that Latin-1 prints come first and stand for themselves; the other 68 follow as U+0100, U+0101, …
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return (*((byte, chr(byte)) for byte in printable), *((byte, chr(0x100 + i)) for i, byte in enumerate(others)))


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Ids from merges alone: the bytes 0-255, one id per merge in order, end-of-text last."""
    ids = {character: i for i, (_, character) in enumerate(alphabet())}
    for left, right in merges:
        ids.setdefault(left + right, len(ids))  # two merges may make the same token; it has one id
    ids[END_OF_TEXT] = len(ids)
    return ids


def build(merges: list[tuple[str, str]]) -> Tokenizer:
    """A byte-level BPE of the `tokenizers` library from its merges, in vocabulary-file characters."""
    backend = Tokenizer(models.BPE(vocab=vocabulary(merges), merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return backend


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """The transformers tokenizer over `backend`.

    End-of-text begins and ends texts; text that spells it out stays text (`split_special_tokens=True`, saved with the
    tokenizer; a call may pass False). Nothing is added on encoding, nothing cleaned up on decoding.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def repaired(text: str) -> str:
    """`text` with surrogate pairs joined and unpaired surrogates made U+FFFD, as tiktoken has it; other text as it is.

    Unpaired surrogates come from JSON escapes such as ``\\ud800``; they have no UTF-8 and so no tokens.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def gpt2_merges() -> list[tuple[str, str]]:
    """GPT-2's 50,000 merges in order of rank, in vocabulary-file characters."""
    text = (files("gpt3.tokenizer") / "data" / "vocab.bpe").read_text(encoding="utf-8")
    pairs = (line.split(" ") for line in text.splitlines()[1:])  # the first line says "#version: 0.2"
    return [(left, right) for left, right in pairs]


@cache
def _original() -> PreTrainedTokenizerFast:
    return wrap(build(gpt2_merges()))


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's tokenizer, offline: 50,257 ids, ``<|endoftext|>`` (50256) as beginning and end.

    Built once (about 0.2 s); each call gives a copy of its own (0.1 s), so that adding tokens or a chat template to one
    changes no other.
    """
    return deepcopy(_original())

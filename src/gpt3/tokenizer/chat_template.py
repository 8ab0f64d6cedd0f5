"""From messages to a prompt's token ids: by the tokenizer's chat template, or as few-shot text for base models.

Template and messages are both untrusted. A template is a program that comes with a model folder: it may fail in any way, or
never end. A message is data: where it spells a special token it stays text, so that nobody can end a turn by typing
``<|end|>`` and speak for another. Fine-tuning, ``gpt3 chat`` and the server all build their ids here.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SECONDS = 2.0
"""CPU time allowed for rendering one conversation; a thousand turns take a few hundredths of it."""
TEMPLATE_FILE = "<template>"
"""What Jinja calls the file of a template's compiled code."""
GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
MARK = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
SURROGATE = re.compile("[\ud800-\udfff]")
BRACKETED = re.compile(r"<.+>|\[.+\]|\{.+\}", re.DOTALL)
"""How control tokens look: ``<|im_start|>``, ``</s>``, ``[INST]``."""
PRIVATE_USE = range(0x100000, 0x10FFFE)
"""Code points of Unicode's last plane. While a template is rendered, one that nothing else uses stands for a special token that a
message spells."""
EXAMPLES = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by William Shakespeare."),
    ("How many days are there in a week?", "There are seven days in a week."),
)
"""Few-shot examples before the conversation with a base model, in the form of Brown et al. 2020, appendix G."""
FEW_SHOT_STOPS = ("\n\n", "\nQ:")
"""Texts that end an answer to `few_shot_text`."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


def has_template(tokenizer: Any) -> bool:
    """Whether the model was tuned to converse: its tokenizer has a chat template."""
    own: str | dict[str, str] = getattr(tokenizer, "chat_template", None) or ""
    return "default" in own if isinstance(own, dict) else own != ""


def plain_jinja(template: Any) -> Any:
    """A chat template (a text, or several by name) that every Jinja renders alike: without transformers' generation marks."""
    if isinstance(template, dict):
        return {name: plain_jinja(text) for name, text in template.items()}
    # a condition that always holds trims the white space around it as the mark did
    return template and MARK.sub(lambda mark: mark[1] + ("endif" if mark[2] else "if true") + mark[3], template)


def few_shot_text(messages: Sequence[Message], shots: int | None = None) -> str:
    """A conversation as a base model is asked: `shots` of `EXAMPLES` (default: all), then the turns, up to the next answer."""
    lines = [message.content for message in messages if message.role == "system"]
    lines += [f"Q: {question}\nA: {answer}" for question, answer in EXAMPLES[:shots]]
    turns = [message.content for message in messages if message.role != "system"]
    lines += [f"Q: {question}\nA: {answer}" for question, answer in zip(turns[:-1:2], turns[1::2], strict=True)]
    return "\n\n".join([*lines, f"Q: {turns[-1]}\nA:"])


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: with a chat template and the special tokens it uses. It may change its template later.

    Raises:
        InputError: there is no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        from tokenizers import Tokenizer

        if not has_template(tokenizer):
            raise InputError("the model has no chat template. Make one with gpt3 finetune.")
        self.tokenizer = tokenizer
        text = tokenizer.backend_tokenizer.to_str()
        self._marked = Tokenizer.from_str(text)
        content = json.loads(text)
        controls = [
            token for token in content["added_tokens"] if token["special"] or self._is_control(token["content"])
        ]
        for token in controls:
            token["special"] = True
        self._plain = Tokenizer.from_str(json.dumps(content))
        self._plain.encode_special_tokens = True
        for each in (self._marked, self._plain):  # what an earlier call left set would cut conversations
            each.no_truncation()
            each.no_padding()
        specials = [token["content"] for token in controls]
        self._used = set().union(*specials)
        longest_first = sorted(specials, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _is_control(self, token: str) -> bool:
        """Whether a token that its file does not call special controls the conversation, by its look or its use in the template.

        Others are words and white space.
        """
        return BRACKETED.fullmatch(token) is not None or (
            bool(token.strip()) and token in self.tokenizer.get_chat_template()
        )

    @property
    def marked(self) -> bool:
        """Whether the template marks what the assistant says (``{% generation %}``), as training needs it."""
        return GENERATION.search(self.tokenizer.get_chat_template()) is not None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the assistant begins its next answer.

        Raises:
            InputError: as `encode`.
        """
        return self.encode(messages, prompt=True)[0]

    def plain(self, text: str) -> list[int]:
        """A text's ids, without the template; a special token that it spells stays text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode(self, messages: Sequence[Message], prompt: bool = False) -> tuple[list[int], list[bool]]:
        """A conversation's ids, and for each whether the assistant says it.

        The text is cut at the template's generation marks and each piece is encoded alone, as at inference, where the
        prompt ends at a mark. So ids and marks come from the same pass.

        Args:
            prompt: end where the assistant begins its next answer; nothing is marked then.

        Raises:
            InputError: the template fails, takes longer than `SECONDS` or gives no text; a message is not valid Unicode.
        """
        contents = [message.content for message in messages]
        if any(map(SURROGATE.search, contents)):
            raise InputError("a message holds half a character (a surrogate without its other half). Send whole ones.")
        spelled = sorted({token for content in contents for token in self._spelled.findall(content)})
        used = self._used.union(*contents, self.tokenizer.get_chat_template())
        marks = dict(zip(spelled, (mark for mark in map(chr, PRIVATE_USE) if mark not in used), strict=False))
        if len(marks) < len(spelled):
            raise InputError("the messages use all private characters of Unicode. Leave some out.")
        turns = [
            {"role": message.role, "content": self._spelled.sub(lambda match: marks[match[0]], message.content)}
            for message in messages
        ]
        text, spans = self._render(turns, prompt)
        tokens = {mark: token for token, mark in marks.items()}
        ids: list[int] = []
        said: list[bool] = []
        cuts = (0, *itertools.chain.from_iterable(spans), len(text))
        for number, (start, stop) in enumerate(itertools.pairwise(cuts)):  # the assistant speaks in every second piece
            found = self._encode(text[start:stop], tokens)
            ids += found
            said += [number % 2 == 1] * len(found)
        if not ids:
            raise InputError("the chat template makes nothing of these messages. Send others.")
        return ids, said

    def _encode(self, text: str, tokens: dict[str, str]) -> list[int]:
        """Ids of a piece of the rendered text; `tokens` are the special tokens that messages spell, by their marks."""
        ids: list[int] = []
        for piece in re.split(f"([{''.join(tokens)}])", text) if tokens else [text]:
            encoder, piece = (self._plain, tokens[piece]) if piece in tokens else (self._marked, piece)
            ids += encoder.encode(piece, add_special_tokens=False).ids
        return ids

    def _render(self, turns: list[dict[str, str]], prompt: bool) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where in it the assistant speaks.

        transformers' sandbox keeps a template from files and the network, and a ``range`` below 100,000; nested loops are
        allowed. So every line of the template looks at the clock.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        last = time.thread_time() + SECONDS

        def watch(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code.co_filename != TEMPLATE_FILE:
                return None
            if time.thread_time() > last:
                raise TimeoutError(f"it has not ended after {SECONDS:g} seconds of computing")
            return watch

        names: dict[str, Any] = dict(self.tokenizer.special_tokens_map)  # templates may use {{ bos_token }}
        before = sys.gettrace()
        sys.settrace(watch)
        try:
            rendered: Any = render_jinja_template(
                conversations=[turns],
                chat_template=self.tokenizer.get_chat_template(),
                return_assistant_tokens_mask=not prompt,
                add_generation_prompt=prompt,
                **names,
            )
        except Exception as error:  # it is the template's code: it may raise anything
            reason = one_line(error).rstrip(".")
            raise InputError(f"the chat template fails: {reason}. Fix it, or send messages that it takes.") from None
        finally:
            sys.settrace(before)
        texts, spans = rendered
        return texts[0], [] if prompt else spans[0]

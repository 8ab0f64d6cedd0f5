"""The chat template: conversations become tokens, and which of them are trained is known from the same pass.

A template is Jinja, saved with the tokenizer, so that transformers' ``apply_chat_template`` gives the same tokens. What the
assistant says stands between ``{% generation %}`` marks. Text is cut at these marks and each piece is encoded by itself, as
it is at inference, where the prompt ends at a mark; ids and marks are made together and cannot be offset.

Text of a message that spells a special token stays text: no user can end a turn by typing ``<|end|>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.finetuning.conversations import Message
from gpt3.tokenizer.template_rendering import TemplateError, bounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "templates"
NAMED = ("harmony", "chatml")
SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
PLACEHOLDER = 0x100000
"""First character of the last private plane, of which no icon font makes use (as Nerd Fonts do of the one before). These stand
for special tokens which messages spell, while a template is rendered."""
PROBE = (
    Message("system", "Be brief."),
    Message("user", "One?"),
    Message("assistant", "First answer."),
    Message("user", "Two?"),
    Message("assistant", "Second answer."),
)


@dataclass(frozen=True)
class Tokens:
    """A conversation as ids."""

    ids: list[int]
    trained: list[bool]
    """Whether each id is something the assistant says, its end included."""


def has_marks(source: str) -> bool:
    """Whether a template marks what the assistant says, as training needs it."""
    return GENERATION.search(source) is not None


def read_template(choice: str | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The Jinja source of ``harmony``, ``chatml`` or a file; None: the tokenizer's own, else harmony's.

    Raises:
        InputError: no such template, a file that is not UTF-8, or one without generation marks.
    """
    own = tokenizer.chat_template
    if choice is None and isinstance(own, str) and has_marks(own):
        return own
    name = choice or "harmony"
    path = FOLDER / f"{name}.jinja" if name in NAMED else Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"--chat-template {name}: no such template; give {', '.join(NAMED)} or a Jinja file")
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--chat-template {name} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    if name in NAMED:
        source = source.rstrip("\n")
    if not has_marks(source):
        raise InputError(
            f"--chat-template {name} has no generation marks; put {{% generation %}} … {{% endgeneration %}} around what the "
            "assistant says, its end token included"
        )
    return source


def prepare_tokenizer(tokenizer: PreTrainedTokenizerFast, source: str) -> list[str]:
    """Give a tokenizer a chat template and the special tokens it spells; returns those that are new."""
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    new = [token for token in dict.fromkeys(SPECIAL.findall(source)) if token not in known]
    if new:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in new], special_tokens=True)
    tokenizer.chat_template = source
    tokenizer.split_special_tokens = False  # apply_chat_template of transformers goes through the tokenizer's default
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # labels say what counts, never the id
    return new


class PromptTemplate:
    """A tokenizer's chat template as far as asking goes: it makes prompts, and need mark nothing.

    Args:
        tokenizer: with a chat template and its special tokens.

    Raises:
        InputError: there is no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = tokenizer
        try:
            self.source: str = tokenizer.get_chat_template()
        except ValueError:  # none, or several and none by default
            raise InputError("the model has no chat template; fine-tune it first: gpt3 finetune") from None
        text = tokenizer.backend_tokenizer.to_str()
        self._marked, self._plain = Tokenizer.from_str(text), Tokenizer.from_str(text)
        self._plain.encode_special_tokens = True
        specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._spelled = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or r"(?!)")
        self._specials = specials
        last = chr(PLACEHOLDER + max(len(specials) - 1, 0))
        self._placeholders = re.compile(f"([{chr(PLACEHOLDER)}-{last}])")

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the assistant begins its next answer."""
        return self._encode(self._render(messages, prompt=True)[0])

    def plain(self, text: str) -> list[int]:
        """A text's ids, without a template; what spells a special token stays text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for number, piece in enumerate(self._placeholders.split(text)):
            if number % 2:
                ids += self._plain.encode(self._specials[ord(piece) - PLACEHOLDER], add_special_tokens=False).ids
            elif piece:
                ids += self._marked.encode(piece, add_special_tokens=False).ids
        return ids

    def _render(self, messages: Sequence[Message], prompt: bool) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where in it the assistant speaks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        def hide(match: re.Match[str]) -> str:
            return chr(PLACEHOLDER + self._specials.index(match[0]))

        turns = [{"role": turn.role, "content": self._spelled.sub(hide, turn.content)} for turn in messages]
        names: dict[str, Any] = dict(self.tokenizer.special_tokens_map)  # templates may spell {{ bos_token }}
        try:
            rendered: Any = bounded(
                lambda: render_jinja_template(
                    conversations=[turns],
                    chat_template=self.source,
                    return_assistant_tokens_mask=not prompt,
                    add_generation_prompt=prompt,
                    **names,
                )
            )
        except TemplateError as error:
            raise InputError(f"the chat template fails: {error}; mend it, or give messages that it takes") from None
        texts, spans = rendered
        return texts[0], [(start, stop) for start, stop in spans[0]] if spans and not prompt else []


class ChatTemplate(PromptTemplate):
    """A chat template that marks what the assistant says: it makes samples to train on, too.

    Attributes:
        end: the id that ends an answer.

    Raises:
        InputError: the template does not have the properties that training needs; see `_check`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer)
        self.end = self._check()

    def encode(self, messages: Sequence[Message]) -> Tokens:
        """A conversation's ids, and which of them the assistant says."""
        text, spans = self._render(messages, prompt=False)
        ids: list[int] = []
        trained: list[bool] = []
        place = 0
        for start, stop in [*spans, (len(text), len(text))]:
            for piece, said in ((text[place:start], False), (text[start:stop], True)):
                found = self._encode(piece)
                ids += found
                trained += [said] * len(found)
            place = stop
        return Tokens(ids, trained)

    def _check(self) -> int:
        """The end token, once the template has shown on a probe what training and chat rest on.

        - A conversation's beginning is the beginning of its tokens (else history cannot be kept, nor cut at turns).
        - The prompt for an answer is followed by just the trained tokens of that answer (else it trains what is never asked).
        - Every answer ends in one and the same special token, which is trained (else the model never learns to stop).

        Raises:
            InputError: naming the property that does not hold.
        """
        if not has_marks(self.source):
            raise InputError("the chat template has no generation marks; put {% generation %} around the answers")
        whole = self.encode(PROBE)
        ends = set()
        for stop in (3, 5):
            part, prompt = self.encode(PROBE[:stop]), self.prompt(PROBE[: stop - 1])
            if whole.ids[: len(part.ids)] != part.ids:
                raise InputError("the chat template is not prefix-preserving: a longer conversation begins otherwise")
            said = len(part.ids) - part.trained[::-1].index(True) if any(part.trained) else 0
            if part.ids[: len(prompt)] != prompt or not all(part.trained[len(prompt) : said]) or said <= len(prompt):
                raise InputError("the chat template's generation prompt is not what stands before the trained answer")
            ends.add(part.ids[said - 1])
        end = ends.pop()
        if (
            ends
            or end not in self.tokenizer.added_tokens_decoder
            or not self.tokenizer.added_tokens_decoder[end].special
        ):
            raise InputError(
                "the chat template trains no end token: put one special token, such as <|end|>, last between the generation marks"
            )
        return end

"""A conversation with a model: history, what of it fits the context, and answers as they are written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.finetuning.conversations import Message, RowError, as_messages
from gpt3.finetuning.template import ChatTemplate, PromptTemplate, has_marks
from gpt3.inference.decoding import Decoder
from gpt3.inference.generation import Generation, Job
from gpt3.inference.options import SamplingOptions

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

EXAMPLES = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by William Shakespeare."),
    ("How many days are there in a week?", "There are seven days in a week."),
)
"""Questions and answers before those of a chat with a base model, in the form of Brown et al. 2020, appendix G."""
ANSWER_SHARE = 4
"""At least a context's fourth is kept free for the answer, or max_new_tokens where that is less."""


class Framing(Protocol):
    """How messages become a prompt."""

    stops: tuple[str, ...]
    """Texts that end an answer, beside the model's end tokens."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the next answer begins."""


class TemplateFraming:
    """As the model was fine-tuned: by its chat template. One without generation marks, as most of the hub's are, will do: then
    what ends an answer is known from the model's generation_config alone."""

    stops: tuple[str, ...] = ()

    def __init__(self, model: LanguageModel) -> None:
        self.template = PromptTemplate(model.tokenizer)
        if has_marks(self.template.source):
            self.template = checked = ChatTemplate(model.tokenizer)
            model.ends.add(checked.end)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """As `Framing.prompt`."""
        return self.template.prompt(messages)


class FewShotFraming:
    """As base models are used: questions and answers in plain text, a few before the conversation's own."""

    stops: tuple[str, ...] = ("\n\n", "\nQ:")

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """As `Framing.prompt`."""
        lines = [message.content for message in messages if message.role == "system"]
        lines += [f"Q: {question}\nA: {answer}" for question, answer in EXAMPLES]
        turns = [message for message in messages if message.role != "system"]
        for question, answer in zip(turns[::2], [*turns[1::2], None], strict=True):
            lines.append(f"Q: {question.content}\nA:" + (f" {answer.content}" if answer else ""))
        return self.model.encode_prompt("\n\n".join(lines))


def has_template(model: LanguageModel) -> bool:
    """Whether the model was fine-tuned to converse: its tokenizer has a chat template."""
    return bool(model.tokenizer.chat_template)


class Chat:
    """A conversation that goes on.

    Keys and values of what was read stay from turn to turn: a turn reads what is new of the prompt only.

    Args:
        model: what `gpt3.load` returns.
        options: how answers are drawn; by default temperature 0.7 and top-p 0.9.
        system: the system message.
        few_shot: frame it as questions and answers; None: where the model has no chat template.

    Attributes:
        messages: the conversation so far.
        dropped: messages that the last prompt left out, because the context was full.
        last: the last answer with its figures.

    Example:
        >>> chat = Chat(gpt3.load("runs/sft-demo"))
        >>> for piece in chat.reply("What is the Eiffel Tower?"):
        ...     print(piece, end="")
    """

    def __init__(
        self,
        model: LanguageModel,
        options: SamplingOptions | None = None,
        *,
        system: str | None = None,
        few_shot: bool | None = None,
    ) -> None:
        self.model = model
        self.options = options or SamplingOptions(temperature=0.7, top_p=0.9)
        self.few_shot = not has_template(model) if few_shot is None else few_shot
        self.framing: Framing = FewShotFraming(model) if self.few_shot else TemplateFraming(model)
        self.messages: list[Message] = []
        self.dropped = 0
        self.last: Generation | None = None
        self._drawn = 0
        self._decoder = Decoder(model.engine, 1, model.engine.context)
        self.set_system(system or "")

    def reply(self, text: str) -> Iterator[str]:
        """Say something; yields the answer in pieces. Whoever stops iterating keeps the answer so far.

        Raises:
            InputError: an empty message, or one that alone is longer than the context; the conversation is as before.
        """
        if not text.strip():
            raise InputError("the message is empty; say something")
        unanswered = bool(self.messages) and self.messages[-1].role == "user"  # nobody iterated over its answer
        asked = [*self.messages[: len(self.messages) - unanswered], Message("user", text.strip())]
        prompt = self._fitting(asked)
        self.messages = asked
        return self._answer(prompt)

    def regenerate(self) -> Iterator[str]:
        """Take the last answer back and draw another.

        Raises:
            InputError: there is none yet.
        """
        if not self.messages or self.messages[-1].role == "system":
            raise InputError("there is no answer yet; say something first")
        asked = self.messages[:-1] if self.messages[-1].role == "assistant" else self.messages
        prompt = self._fitting(asked)
        self.messages = list(asked)
        return self._answer(prompt)

    def _answer(self, prompt: list[int]) -> Iterator[str]:
        room = self.model.engine.context - len(prompt)
        options = dataclasses.replace(
            self.options,
            max_new_tokens=min(self.options.max_new_tokens, room),
            min_new_tokens=min(self.options.min_new_tokens, room),
            seed=None
            if self.options.seed is None
            else self.options.seed + self._drawn,  # else regenerate says the same
            stop=[*self.options.stop, *self.framing.stops],
        )
        self._drawn += 1
        job = Job(self.model, [prompt], options, decoder=self._decoder)
        try:
            for _, piece in job:
                yield piece
        finally:
            job.close()
            self.last = job.result(0)
            self.messages.append(Message("assistant", self.last.text.strip()))

    def _fitting(self, messages: list[Message]) -> list[int]:
        """The prompt, without as many of the oldest exchanges as it takes to leave room for an answer."""
        context = self.model.engine.context
        limit = context - min(self.options.max_new_tokens, max(1, context // ANSWER_SHARE))
        system = [message for message in messages[:1] if message.role == "system"]
        turns = messages[len(system) :]
        for start in range(0, len(turns), 2):
            prompt = self.framing.prompt([*system, *turns[start:]])
            if len(prompt) <= limit:
                self.dropped = start
                return prompt
        raise InputError(
            f"the message is {len(prompt):,} tokens long with what belongs before it, the context leaves {limit:,}; shorten it"
        )

    def reset(self) -> None:
        """Forget all but the system message."""
        self.messages = [message for message in self.messages[:1] if message.role == "system"]
        self.dropped = 0

    def set_system(self, text: str) -> None:
        """Begin anew with this system message; with "", with none."""
        self.messages = [Message("system", text.strip())] if text.strip() else []
        self.dropped = 0

    def set_option(self, name: str, value: str) -> Any:
        """Change one of SamplingOptions, given as text; returns the new value.

        Raises:
            InputError: an unknown name, or a value out of its range.
        """
        key = name.replace("-", "_")
        known = [
            field.name for field in dataclasses.fields(SamplingOptions) if field.name not in ("num_samples", "logprobs")
        ]
        if key not in known:
            raise InputError(f"unknown option {name!r}; there are {', '.join(known)}")
        try:
            new = json.loads(value)
        except ValueError:
            new = value
        self.options = dataclasses.replace(self.options, **{key: new})
        return getattr(self.options, key)

    def save(self, path: Path | str) -> None:
        """Write the conversation as JSON, which `load` and ``gpt3 finetune --data`` read."""
        record = {"messages": [message.as_dict() for message in self.messages]}
        try:
            write_text(Path(path).expanduser(), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); choose another file") from None

    def load(self, path: Path | str) -> None:
        """Go on with a conversation that `save` wrote.

        Raises:
            InputError: no such file, not JSON, or no conversation.
        """
        try:
            record = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            messages = list(as_messages(record["messages"]))
            turns = messages[1:] if messages[:1] and messages[0].role == "system" else messages
            if any(turn.role != ("user", "assistant")[number % 2] for number, turn in enumerate(turns)):
                raise RowError("user and assistant do not take turns")  # an answer may be empty: models do that
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); name a file that /save wrote") from None
        except (ValueError, KeyError, TypeError, RowError) as error:
            raise InputError(f"{path} is no conversation ({error}); name a file that /save wrote") from None
        self.messages, self.dropped = messages, 0

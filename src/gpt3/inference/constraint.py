"""Constrained output: which tokens may come next, so that a text follows a JSON Schema, a regular expression, or is one of a
few choices.

A constraint speaks of bytes, a tokenizer cuts them anywhere. llguidance walks the vocabulary's trie of bytes for every step and
gives one bit per token: whether the text with it can still become one that follows the constraint. EOS has its bit exactly where
the text is complete. No token is forced: among those allowed, the model's own probabilities decide.

    model.constraint(options) ─ ConstraintCompiler ─▶ Constraint of a row ─ mask ─▶ `follow_constraint` in sampling.py
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt3.errors import InputError, one_line, require
from gpt3.inference.scoring import check_text
from gpt3.inference.streaming import TokenBytes
from gpt3.options import flag

LONGEST = 65_536
"""Characters of a constraint at most: they bound the time to compile it, as llguidance's own limits bound each step's."""
DEEPEST = 64
"""Levels of a schema at most."""
FEW_PATTERNS, SECONDS = 4, 5.0
"""A schema with more patterns and formats is first compiled in a process of its own, for at most this time: for twenty patterns
that must hold together (allOf), llguidance takes minutes and gigabytes to see whether any text is left.
"""
MOST_STATES = 50_000
"""Of the automaton that a row builds from the constraint's expressions: some 100 MB."""
KEPT = 16
"""Compiled constraints that are kept for the next requests."""
WHITESPACE = r" |\n {0,16}"
"""Between the parts of JSON, or none: a model can indent, and cannot write spaces without end."""
KEYWORDS = frozenset(
    """$anchor $comment $defs $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalItems additionalProperties allOf
    anyOf const contains contentEncoding contentMediaType contentSchema default definitions dependencies dependentRequired
    dependentSchemas deprecated description discriminator else enum examples exclusiveMaximum exclusiveMinimum format if items
    maxContains maxItems maxLength maxProperties maximum minContains minItems minLength minProperties minimum multipleOf not oneOf
    pattern patternProperties prefixItems properties propertyNames readOnly required then title type unevaluatedItems
    unevaluatedProperties uniqueItems writeOnly""".split()  # noqa: SIM905
)
"""JSON Schema's, and OpenAPI's discriminator, which pydantic writes."""
NAMED = ("$defs", "definitions", "properties", "patternProperties")
"""Keywords whose value has a schema under each name."""
NESTED = ("additionalItems", "additionalProperties", "allOf", "anyOf", "items", "oneOf", "prefixItems")
"""Keywords whose value is a schema or a list of them."""


class Constraint:
    """What a row's text must follow, as far as the text is.

    Args:
        matcher: llguidance's, at the beginning of a text.
        ends: EOS tokens.
    """

    def __init__(self, matcher: Any, ends: Set[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._after_end = 0  # tokens from EOS on, of a draft: llguidance cannot take them back

    def mask(self) -> NDArray[np.uint8]:
        """Which tokens may come next: a bit per token from the lowest on, in at least (V + 7) // 8 bytes.

        No bit is set where a step takes more than llguidance's limits.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.zeros_like(bits) if self._matcher.is_error() else bits

    def push(self, token: int) -> None:
        """Take the next token, one of those allowed."""
        if self._after_end or token in self._ends:
            self._after_end += 1
        else:
            self._matcher.consume_token(token)

    def take_back(self, count: int) -> None:
        """Forget the last `count` tokens."""
        ended = min(count, self._after_end)
        self._after_end -= ended
        if count > ended:
            self._matcher.rollback(count - ended)

    @property
    def complete(self) -> bool:
        """Whether the text as it is follows the constraint."""
        return bool(self._matcher.is_accepting() and not self._matcher.is_error())


class ConstraintCompiler:
    """Compiles constraints for a vocabulary. Safe to use from several threads.

    Args:
        token_bytes: of the tokenizer.
        vocabulary: ids from here on are never chosen.
        ends: EOS tokens, whose bytes are no text.

    Raises:
        InputError: llguidance is not installed.
    """

    def __init__(self, token_bytes: TokenBytes, vocabulary: int, ends: Set[int]) -> None:
        purpose = "constrained output (--json-schema, --regex, --choices)"
        self._library: Any = require("llguidance", extra="constrain", purpose=purpose)
        self.ends = frozenset(ends)
        known = [end for end in sorted(ends) if end < vocabulary] or [vocabulary]  # one that is never chosen
        self._ends = frozenset(known)
        tokens = [token_bytes[token] for token in range(vocabulary)]
        self._tokenizer = self._library.LLTokenizer(_Vocabulary([*tokens, b""], known), eos_token=known)
        self._compiled = functools.lru_cache(KEPT)(self._compile)

    def new(self, kind: str, text: str) -> Constraint:
        """A constraint for one row.

        Args:
            kind: json_schema, regex or choices, as SamplingOptions names them.
            text: a JSON Schema, a regular expression, or the choices as one.

        Raises:
            InputError: it is too large, or cannot be followed, and why.
        """
        return Constraint(self._compiled(kind, text).deep_copy(), self.ends)

    def _compile(self, kind: str, text: str) -> Any:
        if len(text) > LONGEST:
            raise InputError(f"{flag(kind)} has {len(text):,} characters, more than {LONGEST:,}. Use a smaller one.")
        check_text(flag(kind), text)
        library = self._library
        if kind == "json_schema":
            rule = "%json " + json.dumps(_checked(text) | {"x-guidance": {"whitespace_pattern": WHITESPACE}})
        else:
            rule = f"/{library.regex_to_lark(text, use_ascii='')}/"
        grammar = library.LLMatcher.grammar_from_lark(f'%llguidance {{"no_forcing": true}}\nstart: {rule}')
        if kind == "json_schema" and len(re.findall('"pattern|"format"', text)) > FEW_PATTERNS:
            _try_in_time(grammar)
        limits = library.LLParserLimits(max_lexer_states=MOST_STATES, verbose_errors=False)
        matcher = library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        shown = flag(kind) if kind == "json_schema" else f"{flag(kind)} {text[:40]!r}"
        if matcher.is_error():
            raise InputError(f"{shown} cannot be followed: {_reason(matcher.get_error())}")
        bits = np.unpackbits(Constraint(matcher, self.ends).mask(), bitorder="little")
        if self._ends.issuperset(np.flatnonzero(bits).tolist()):
            raise InputError(f"{shown} cannot be followed: no text but the empty one does. Correct it.")
        return matcher


def _try_in_time(grammar: str) -> None:
    """Compile a grammar in another process.

    Raises:
        InputError: it takes too long.
    """
    code = "import sys, llguidance; llguidance.LLMatcher.validate_grammar(sys.stdin.read())"
    try:
        subprocess.run([sys.executable, "-c", code], input=grammar.encode(), capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        message = f"--json-schema takes more than {SECONDS:g} s to compile. Combine fewer patterns."
        raise InputError(message) from None


class _Vocabulary:
    """A tokenizer as llguidance sees it. It is never asked to encode: no token is forced."""

    is_tokenizer_wrapper, bos_token_id = True, None

    def __init__(self, tokens: list[bytes], ends: list[int]) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, ends, ends[0]

    def __call__(self, text: Any) -> list[int]:
        return []


def _checked(text: str) -> dict[str, Any]:
    """The schema, whose keywords JSON Schema has.

    Raises:
        InputError: it is no JSON object, too deep, or has an unknown keyword, with its place.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--json-schema {text[:40]!r} is not JSON: {one_line(error)}. Correct it.") from None
    if not isinstance(schema, dict):
        raise InputError(f'--json-schema {text[:40]!r} is not a JSON object. Use one such as {{"type": "object"}}.')
    for place, keyword in _keywords(schema, "", 0):
        if keyword not in KEYWORDS and not keyword.startswith("x-"):
            near = difflib.get_close_matches(keyword, KEYWORDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out."
            raise InputError(
                f"--json-schema has the unknown keyword {keyword[:40]!r}{place and f' at {place}'}; {hint}"
            )
    return schema


def _keywords(schema: Any, place: str, depth: int) -> Iterator[tuple[str, str]]:
    """Each keyword of a schema and of those in it, with the place of its schema."""
    if depth > DEEPEST:
        raise InputError(f"--json-schema has more than {DEEPEST} levels. Use a flatter one.")
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        yield place[:100], keyword
        inner = f"{place}.{keyword}" if place else keyword
        if keyword in NAMED and isinstance(value, dict):
            for name, one in value.items():
                yield from _keywords(one, f"{inner}.{name}", depth + 1)
        elif keyword in NESTED:
            for one in value if isinstance(value, list) else [value]:
                yield from _keywords(one, inner, depth + 1)


def _reason(message: str) -> str:
    """Why llguidance refuses, without the grammar that it quotes."""
    if found := re.search(r'Unimplemented keys: \["([^"]+)"', message):
        return f"the keyword {found[1]!r} is not supported. Leave it out."
    if "oneOf constraints" in message:
        return "'oneOf' is supported only if its schemas have different types or constants. Use anyOf."
    detail = re.search(r"^error: (.+)", message, re.M) or re.search(r"(?:JSON schema|in regex\)): (.+)", message)
    return f"{(detail[1] if detail else message.splitlines()[0])[:200]}. Correct it."

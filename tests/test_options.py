"""Options check their types and ranges when they are made, and report everything at once."""

from dataclasses import dataclass, fields
from typing import Literal

import pytest

from gpt3.errors import InputError
from gpt3.options import Option, Options, flag, option, option_of, range_errors


@dataclass(frozen=True)
class Example(Options):
    top_k: int = option(0, least=0)
    top_p: float = option(1.0, above=0, most=1)
    steps: int | None = option(None, least=1, group="Length", common=True)
    kind: Literal["a", "b"] = "a"
    names: list[str] = option(["wiki"])
    tracks: list[Literal["none", "wandb"]] = option(["none"])
    bias: dict[int, float] = option({}, least=-100, most=100)
    optimizer: str = option("adamw", choices={"adamw": 1, "lion": 2})
    plain: bool = False

    def errors(self):
        if self.top_k == 7:
            yield "--top-k 7 is unlucky; give 8"


def test_defaults_are_valid_and_not_shared() -> None:
    one, two = Example(), Example()
    assert one == two
    assert one.names is not two.names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": -1}, "--top-k -1 must be a whole number of at least 0"),
        ({"top_k": 1.5}, "--top-k 1.5 must be a whole number of at least 0"),
        ({"top_k": True}, "--top-k True must be a whole number of at least 0"),
        ({"top_p": 0}, "--top-p 0 must be a number above 0 and at most 1"),
        ({"top_p": float("nan")}, "--top-p nan must be a number above 0 and at most 1"),
        ({"top_k": 10**400}, f"--top-k {10**400} must be a whole number of at least 0"),
        ({"top_p": 10**400}, f"--top-p {10**400} must be a number above 0 and at most 1"),
        ({"steps": 0}, "--steps 0 must be a whole number of at least 1"),
        ({"kind": "c"}, "--kind c must be one of a, b"),
        ({"names": "wiki"}, "--names wiki must be a list"),
        ({"names": [3]}, "--names 3 must be a text"),
        ({"tracks": ["wandb", "mail"]}, "--tracks mail must be one of none, wandb"),
        ({"bias": {3: 101.0}}, "--bias 101.0 must be a number of at least -100 and at most 100"),
        ({"optimizer": "sgd"}, "--optimizer sgd must be one of adamw, lion"),
        ({"plain": 1}, "--plain 1 must be true or false"),
        (
            {"top_k": 7, "top_p": 2},
            "--top-p 2 must be a number above 0 and at most 1; --top-k 7 is unlucky; give 8",
        ),
    ],
)
def test_errors_say_option_value_and_fix(values: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Example(**values)
    assert str(caught.value) == message


def test_declarations_can_be_read() -> None:
    declared = {field.name: option_of(field) for field in fields(Example)}
    assert declared["steps"] == Option(least=1, group="Length", common=True)
    assert str(declared["top_p"]) == "above 0 and at most 1"
    assert declared["plain"] == Option()
    assert range_errors(Example(), ["top_k"]) == []
    assert flag("batch_tokens") == "--batch-tokens"

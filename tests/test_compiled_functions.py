"""What numba compiles: each function states its floating-point rules, and cached code is stale where its sources have changed."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpt3
from gpt3.inference import activations, four_bit, kernels
from gpt3.training.lean import attention, rows
from gpt3.training.lean.threads import FAST, Loop

SOURCE = Path(gpt3.__file__).parent
COMPILERS = {"njit", "jit", "cfunc", "register_jitable"}
ROOMS_OF_FLOATS = ("inference", "training")


def decorated(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, ast.expr, str]]:
    """Functions that numba compiles, with their decorators and these' names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(called, ast.Name) and called.id in COMPILERS:
                    yield node, decorator, called.id


def computes_floats(function: ast.FunctionDef) -> bool:
    nodes = list(ast.walk(function))
    divides = any(isinstance(node, ast.Div) for node in nodes)
    constants = any(isinstance(node, ast.Constant) and isinstance(node.value, float) for node in nodes)
    names = any(isinstance(node, ast.Attribute) and "float" in node.attr for node in nodes)
    return divides or constants or names


def test_every_compiled_function_states_fastmath() -> None:
    """One that did not would take the rules of whatever function calls it first, and its last bits would depend on that."""
    silent, found = [], 0
    for file in sorted(SOURCE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "numba" not in text:
            continue
        place = file.relative_to(SOURCE).as_posix()
        for function, decorator, _ in decorated(ast.parse(text)):
            if not place.startswith(ROOMS_OF_FLOATS) and not computes_floats(function):
                continue
            found += 1
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            says = {keyword.arg or ast.unparse(keyword.value) for keyword in keywords}
            if not says & {"fastmath", "FAST"}:
                silent.append(f"{place}: {function.name}")
    assert silent == []
    assert found > 30
    assert "fastmath" in FAST


def sources(function: Any, seen: set[int] | None = None) -> set[str]:
    """The package's modules whose code becomes part of a compiled function, its own among them."""
    seen = set() if seen is None else seen
    plain = inspect.unwrap(getattr(function, "py_func", getattr(function, "function", function)))
    plain = getattr(plain, "_defn", plain)  # an intrinsic
    if not isinstance(plain, types.FunctionType) or id(plain) in seen or not plain.__module__.startswith("gpt3."):
        return set()
    seen.add(id(plain))
    found = {plain.__module__}
    inner = [const for const in plain.__code__.co_consts if isinstance(const, types.CodeType)]
    for name in {name for code in (plain.__code__, *inner) for name in code.co_names}:
        used = plain.__globals__.get(name)
        if isinstance(used, types.ModuleType) and used.__name__.startswith("gpt3."):
            found.add(used.__name__)
        elif used is not None:
            found |= sources(used, seen)
    return found


LOOPS = [each for module in (attention, rows) for each in vars(module).values() if isinstance(each, Loop)]


@pytest.mark.parametrize(
    "function",
    [kernels.step, kernels.linear, *LOOPS],
    ids=lambda each: getattr(each, "function", each).__name__,
)
def test_cached_code_depends_on_all_that_it_is_compiled_from(function: Any) -> None:
    cached = function.compiled if isinstance(function, Loop) else function
    stamp = cached._cache._cache_file._source_stamp
    known = {name for name, *_ in stamp[1]} | {inspect.unwrap(getattr(function, "function", function)).__module__}
    needed = sources(function)
    assert activations.__name__ in sources(kernels.linear)
    assert needed <= known, f"not in the stamp: {needed - known}"


def test_a_stamp_is_of_the_file() -> None:
    for name, time, size in kernels.step._cache._cache_file._source_stamp[1]:
        file = Path(str(sys.modules[name].__file__)).stat()
        assert (time, size) == (file.st_mtime, file.st_size)
    assert four_bit.__name__ in {name for name, *_ in kernels.step._cache._cache_file._source_stamp[1]}

"""Random JSON Schemas of every kind that constrained output supports, a function of a seed."""

import random
from typing import Any

PATTERNS = ["^[a-c]+$", "^x", "y$", "[0-9]{2}", "^(sea|Привет|🎉)+$", "^a.b$", r"^\d{1,3}$"]
FORMATS = ["date", "time", "date-time", "uuid", "ipv4"]
WORDS = ["a", "sea", "café", "a b", 'say "so"', "back\\slash", "🎉", "", "x/y", "new\nline"]
Schema = dict[str, Any]


def random_schema(seed: int) -> Schema:
    """A schema; some refer to definitions, also to themselves."""
    rng = random.Random(seed)
    schema = make(rng, 3, refs=True)
    return {**schema, "$defs": {"leaf": make(rng, 1), "node": node(rng)}}


def node(rng: random.Random) -> Schema:
    """A list of lists of lists …, of any depth."""
    children = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}
    return {
        "type": "object",
        "properties": {"v": make(rng, 0), "c": children},
        "required": ["v"],
        "additionalProperties": False,
    }


def make(rng: random.Random, depth: int, refs: bool = False) -> Schema:
    kinds = [*LEAVES, *([array, array, record, record, record, any_of, all_of, one_of] if depth else [])]
    kind = rng.choice([*kinds, *([reference] if refs else [])])
    return kind(rng) if kind in (*LEAVES, reference) else kind(rng, depth - 1, refs)


def bounds(rng: random.Random, least: str, most: str, top: int) -> Schema:
    low, high = sorted((rng.randint(0, top), rng.randint(0, top)))
    return {key: value for key, value in ((least, low), (most, high)) if rng.random() < 0.5}


def string(rng: random.Random) -> Schema:
    lengths = bounds(rng, "minLength", "maxLength", 9)
    texts = [{}, lengths, {"pattern": rng.choice(PATTERNS)}, {"format": rng.choice(FORMATS)}]
    return {"type": "string", **rng.choice(texts)}


def integer(rng: random.Random) -> Schema:
    low = rng.randint(-1000, 1000)
    between = {"exclusiveMinimum": low, "exclusiveMaximum": low + 40}
    multiple = {"multipleOf": rng.randint(2, 9)}
    limits = [{}, multiple, {"minimum": low}, {"maximum": low}, between, {"minimum": low, "maximum": low}]
    return {"type": "integer", **rng.choice(limits)}


def number(rng: random.Random) -> Schema:
    low = rng.choice([-2.5, -1, 0, 0.125, 7, 1234.5])
    limits = [{}, {"minimum": low}, {"exclusiveMaximum": low}, {"minimum": low, "maximum": low + 3.25}]
    return {"type": "number", **rng.choice(limits)}


def plain(rng: random.Random) -> Schema:
    return {"type": rng.choice(["boolean", "null"])}


def value(rng: random.Random) -> Any:
    return rng.choice([None, True, False, 0, -7, 1.5, 10**12, *WORDS, [1, "x"], {"k": [None]}])


def constant(rng: random.Random) -> Schema:
    return {"const": value(rng)}


def enumeration(rng: random.Random) -> Schema:
    return {"enum": [value(rng) for _ in range(rng.randint(1, 5))]}


def union(rng: random.Random) -> Schema:
    return {"type": rng.sample(["string", "integer", "boolean", "null", "number"], 2)}


def reference(rng: random.Random) -> Schema:
    return {"$ref": rng.choice(["#/$defs/leaf", "#/$defs/node"])}


LEAVES = (string, integer, number, plain, constant, enumeration, union)


def array(rng: random.Random, depth: int, refs: bool) -> Schema:
    found: Schema = {"type": "array", **bounds(rng, "minItems", "maxItems", 3)}
    if rng.random() < 0.3:
        found["prefixItems"] = [make(rng, depth, refs) for _ in range(rng.randint(1, 2))]
    found["items"] = make(rng, depth, refs) if rng.random() < 0.8 or "prefixItems" not in found else False
    if found["items"] is False:
        found = {key: found[key] for key in ("type", "prefixItems", "items")}
    return found


def record(rng: random.Random, depth: int, refs: bool) -> Schema:
    names = rng.sample(WORDS[:-1], rng.randint(0, 3))
    found: Schema = {"type": "object", "properties": {name: make(rng, depth, refs) for name in names}}
    found["required"] = [name for name in names if rng.random() < 0.6]
    if rng.random() < 0.2:
        found["patternProperties"] = {"^[pq]+$": make(rng, 0)}
    more = rng.choice([False, False, None, make(rng, 0)])
    return found if more is None else {**found, "additionalProperties": more}


def any_of(rng: random.Random, depth: int, refs: bool) -> Schema:
    return {"anyOf": [make(rng, depth, refs) for _ in range(rng.randint(1, 3))]}


def one_of(rng: random.Random, depth: int, refs: bool) -> Schema:
    return {"oneOf": [string(rng), {"type": "array", "items": make(rng, depth, refs)}, plain(rng)]}


def all_of(rng: random.Random, depth: int, refs: bool) -> Schema:
    parts = [
        {"type": "object", "properties": {name: make(rng, depth, refs)}, "required": [name]} for name in ("m", "n")
    ]
    return {"allOf": parts}

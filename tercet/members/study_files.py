"""The form of a study as a file: JSON of one version, read strictly, since it comes from somebody else.

What is read is bounded before it is parsed: so many bytes, so deep. Unknown and repeated fields are refused,
and so are numbers that are none: what a person sees in the file is all that there is.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from tercet.errors import ConsentError

VERSION = 1
FORMAT = "tercet_study"
MOST_BYTES = 1 << 20
"""Of a study, as a file or as it travels."""
DEEPEST = 32
"""Lists and dicts in each other."""
FIELDS = {"purpose": str, "analyst": str, "receivers": list, "uses": int, "until": str, "requests": list}
REQUEST = {"computation": str, "arguments": dict}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)
"""Strings, also one without an end, within which brackets mean nothing; and brackets."""


def canonical(study: Mapping[str, Any]) -> bytes:
    """The bytes of a study: keys in order, no spaces, ASCII.

    Raises ConsentError for what is no plain data.
    """
    return _dumped(study, sort_keys=True, separators=(",", ":")).encode()


def pretty(study: Mapping[str, Any]) -> str:
    """A study for people."""
    return _dumped(study, indent=2, ensure_ascii=False) + "\n"


def _dumped(study: Mapping[str, Any], **options: Any) -> str:
    fields = {FORMAT: VERSION} | {name: study[name] for name in FIELDS} | {"until": written(study["until"])}
    try:
        text = json.dumps(fields, allow_nan=False, **options)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConsentError(f"a study is plain data: text, numbers, lists and dicts ({error})") from error
    if len(text.encode()) > MOST_BYTES:
        raise _too_large(len(text.encode()))
    return text


def read(packed: bytes) -> dict[str, Any]:
    """The fields of a study, of the right types; the values of arguments are plain data.

    Raises ConsentError that says what is wrong.
    """
    if len(packed) > MOST_BYTES:
        raise _too_large(len(packed))
    try:
        text = packed.decode()
        _check_depth(text)
        found = json.loads(text, object_pairs_hook=_dict, parse_constant=_no_number, parse_float=_float)
    except ValueError as error:
        raise ConsentError(f"what should be a study is no JSON text ({error})") from error
    if not isinstance(found, dict) or found.get(FORMAT) != VERSION or isinstance(found.get(FORMAT), bool):
        raise ConsentError(f'what should be a study does not say "{FORMAT}": {VERSION}; record it anew')
    _check_fields(found, {FORMAT: int, **FIELDS}, "the study")
    if not all(isinstance(one, str) for one in found["receivers"]):
        raise ConsentError("the study: receivers are names of members")
    for place, request in enumerate(found["requests"], 1):
        if not isinstance(request, dict):
            raise ConsentError(f"request {place} of the study is no dict")
        _check_fields(request, REQUEST, f"request {place} of the study")
    _check_values(found)
    return {**{name: found[name] for name in FIELDS}, "until": _seconds(found["until"])}


def _too_large(size: int) -> ConsentError:
    return ConsentError(
        f"a study has at most {MOST_BYTES:,} bytes, and this has {size:,}; record fewer requests"
    )


def _check_fields(found: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> None:
    for name, kind in kinds.items():
        if type(found.get(name)) is not kind:
            raise ConsentError(f"{what} has no {name}, or one that is no {kind.__name__}")
    if more := sorted(found.keys() - kinds.keys()):
        raise ConsentError(f"{what} has a field {more[0]!r:.80} that no study has")


def _check_depth(text: str) -> None:
    """Raise ConsentError for a text that would have the parser go too deep."""
    depth = 0
    for part in _PARTS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part.group(), 0)
        if depth > DEEPEST:
            raise ConsentError(f"the study has lists or dicts more than {DEEPEST} deep in each other")


def _check_values(found: Any) -> None:
    """Raise ConsentError for numbers beyond 64 bits, and for text that cannot be written down."""
    waiting = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise ConsentError("the study has an integer of more than 64 bits")
        elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise ConsentError("the study has text that is no Unicode")


def _dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ConsentError("the study says something twice in one dict")
    return found


def _no_number(name: str) -> NoReturn:
    raise ConsentError(f"the study has {name} where a number should be")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ConsentError(f"the study has a number beyond all floats: {text:.40}")
    return value


def written(seconds: int) -> str:
    """A time, in UTC, as files have it. Raises ConsentError for one that no calendar has."""
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError, TypeError) as error:
        raise ConsentError(f"a study ends at a time that no calendar has ({error})") from error


def _seconds(text: str) -> int:
    try:
        if _TIME.fullmatch(text):
            return int(dt.datetime.fromisoformat(text).timestamp())
    except ValueError:
        pass
    raise ConsentError(f"the study runs until {text!r:.40}; write a time in UTC as in 2030-12-31T23:59:59Z")

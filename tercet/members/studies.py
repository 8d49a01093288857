"""Studies: what owners consent to as a whole. The requests of a notebook, for what, how often, until when.

An analyst records requests on made-up rows, and owners sign the digest of them once. What runs later has to
be the same requests, whatever rows the tables have come to hold. A study is plain data, so that nodes and
owners read it without running anything of the analyst's: computations by name, and their arguments, in which
tagged values stand for tables, kept models, estimators, and for what an earlier request of the study gave.

Requests are counted from 1, in the order in which the notebook made them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgpack

from tercet.errors import ConsentError
from tercet.members import study_files
from tercet.members.keys import MemberKeys, verify

PURPOSE = b"study"
TO, ANALYST = "to", "analyst"
"""The argument that names who receives a result; and the receiver that stands for whoever asks."""
TABLE, MODEL, RESULT, COLUMNS, RENAMED, EXPRESSION, ESTIMATOR = TAGS = (
    "$table",
    "$model",
    "$result",
    "$columns",
    "$renamed",
    "$expression",
    "$estimator",
)
"""Keys of the dicts of one item that stand for something."""
NODE = "$node"
"""What refers, within an expression, to an operation before."""
MOST_REQUESTS = 1000
MOST_VALUES = 1 << 14
"""Values in the arguments of all requests: what nodes and owners look through takes as long."""
MOST_USES = 10_000
LONGEST_PURPOSE = 2000
LONGEST_NAME = 256
LONGEST_SHOWN = 60
LONGEST_FORMULA = 200
SIGNS = {
    "__add__": "+",
    "__sub__": "-",
    "__mul__": "*",
    "__truediv__": "/",
    "__pow__": "**",
    "__lt__": "<",
    "__le__": "<=",
    "__gt__": ">",
    "__ge__": ">=",
    "__eq__": "==",
    "__ne__": "!=",
    "__and__": "&",
    "__or__": "|",
    "__xor__": "^",
}
"""Operations of expressions, as they are written between two operands."""


@attrs.frozen
class Asked:
    """A request: a computation by name, and its arguments as plain data."""

    computation: str
    arguments: Mapping[str, Any]

    @property
    def receiver(self) -> str:
        """Who receives what comes out."""
        return str(self.arguments.get(TO) or ANALYST)

    def values(self) -> Iterator[Any]:
        """All values in the arguments, outer ones first; of tagged values also what is in them."""
        return each_value(self.arguments)

    def tagged(self, tag: str) -> Iterator[Any]:
        """What the tagged values of a kind have under their tag."""
        return (value[tag] for value in self.values() if is_tagged(value, tag))


@attrs.frozen
class Study:
    """What is asked of owners: requests for a purpose, to be run so often, until a time.

    `until` is in whole seconds since 1970. `receivers` are all members to whom something comes out, among
    them the analyst. Raises ConsentError for what makes no sense.
    """

    purpose: str
    analyst: str
    requests: tuple[Asked, ...] = attrs.field(repr=False)
    uses: int
    until: int
    receivers: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        _check(self)

    @classmethod
    def of(cls, requests: Sequence[Asked], *, purpose: str, analyst: str, uses: int, until: int) -> Study:
        """A study of requests, whose receivers follow from these."""
        return cls(purpose, analyst, tuple(requests), uses, until, _receivers(requests, analyst))

    def to_bytes(self) -> bytes:
        """Canonical: the same for equal studies. For the wire, the journal and the digest."""
        return study_files.canonical(self._fields())

    @classmethod
    def from_bytes(cls, packed: bytes) -> Study:
        """A study from its canonical form or its file. Raises ConsentError for anything else."""
        fields = study_files.read(packed)
        requests = tuple(Asked(one["computation"], one["arguments"]) for one in fields["requests"])
        told = {name: fields[name] for name in ("purpose", "analyst", "uses", "until")}
        return cls(requests=requests, receivers=tuple(fields["receivers"]), **told)

    def to_text(self) -> str:
        """The file: JSON for people to read."""
        return study_files.pretty(self._fields())

    def _fields(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def digest(self) -> bytes:
        """32 bytes that name the study: what owners sign."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> bytes:
        return hashlib.blake2b(self.to_bytes(), digest_size=32, person=b"tercet-study").digest()

    @property
    def number(self) -> str:
        """What people call it: the first digits of its digest."""
        return self.digest().hex()[:8]

    def tables(self) -> tuple[str, ...]:
        """Names of the tables that its requests read."""
        return self._named[TABLE]

    def models(self) -> tuple[str, ...]:
        """Names of the kept models that its requests read."""
        return self._named[MODEL]

    @functools.cached_property
    def _named(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {TABLE: set(), MODEL: set()}
        for value in (value for one in self.requests for value in one.values()):
            if (tag := tag_of(value)) in (TABLE, MODEL):
                found[tag].add(value[tag])
        return {tag: tuple(sorted(names)) for tag, names in found.items()}


def _receivers(requests: Sequence[Asked], analyst: str) -> tuple[str, ...]:
    named = {one.receiver for one in requests} - {ANALYST}
    return tuple(sorted(named | {analyst}))


def _check(study: Study) -> None:
    if not 0 < len(study.purpose.strip()) <= LONGEST_PURPOSE:
        raise ConsentError(
            f"a study tells owners its purpose, in up to {LONGEST_PURPOSE} characters; this one has "
            f"{len(study.purpose.strip())}"
        )
    if not 0 < len(study.analyst) <= LONGEST_NAME:
        raise ConsentError("a study says who runs it: give the analyst's name as a member of the lake")
    if not 1 <= study.uses <= MOST_USES:
        raise ConsentError(f"a study is run 1 to {MOST_USES:,} times, not {study.uses}")
    if not 1 <= len(study.requests) <= MOST_REQUESTS:
        raise ConsentError(f"a study has 1 to {MOST_REQUESTS:,} requests, not {len(study.requests)}")
    values = sum(1 for one in study.requests for _ in itertools.islice(one.values(), MOST_VALUES + 1))
    if values > MOST_VALUES:
        raise ConsentError(
            f"a study has at most {MOST_VALUES:,} values in the arguments of its requests, and this has "
            "more: record fewer requests, or name fewer columns in each"
        )
    for position, request in enumerate(study.requests, 1):
        _check_request(request, position)
    expected = _receivers(study.requests, study.analyst)
    if study.receivers != expected:
        raise ConsentError(
            f"the study names as receivers {', '.join(study.receivers) or 'nobody'}, and its requests send "
            f"to {', '.join(expected)}; name just those, in this order"
        )


def _check_request(request: Asked, position: int) -> None:
    where = f"request {position}, {plain(request.computation)}"
    if not 0 < len(request.computation) <= LONGEST_NAME:
        raise ConsentError(f"request {position} names no computation")
    to = request.arguments.get(TO)
    if to is not None and not (isinstance(to, str) and 0 < len(to) <= LONGEST_NAME):
        raise ConsentError(f"{where}: {TO} is {short(to)}, which is no member's name")
    for value in request.values():
        tag = tag_of(value)
        if tag is None:
            _check_names(value, where)
            continue
        match tag, value[tag]:
            case ("$table" | "$model", str(name)) if 0 < len(name) <= LONGEST_NAME:
                continue
            case "$result", [int(earlier), [*_]] if not isinstance(earlier, bool):
                if 1 <= earlier < position:
                    continue
                raise ConsentError(
                    f"{where} reads the result of request {earlier}; it can read those of earlier ones only"
                )
            case "$columns", [_, [*names]] if all(isinstance(name, str) for name in names):
                continue
            case "$renamed", [_, dict(names)] if all(isinstance(new, str) for new in names.values()):
                continue
            case "$expression", [_, [*_]]:
                continue
            case "$estimator", [str(), dict()]:
                continue
        raise ConsentError(f"{where} has a value under {tag!r} that means nothing: {short(value[tag])}")


def _check_names(value: Any, where: str) -> None:
    """Raise ConsentError for a dict with names that could be taken for tags; in expressions one may."""
    wrong = [name for name in value if name.startswith("$")] if isinstance(value, Mapping) else []
    if wrong and not (wrong == [NODE] and len(value) == 1):
        raise ConsentError(f"{where} has a value under {short(wrong[0])} that means nothing: {short(value)}")


# -- values of arguments -------------------------------------------------------------------------------------


def tag_of(value: Any) -> str | None:
    """The tag of a value that stands for something, None of any other."""
    if isinstance(value, dict) and len(value) == 1:
        (key,) = value
        if key in TAGS:
            return str(key)
    return None


def is_tagged(value: Any, tag: str) -> bool:
    """Whether a value stands for something of a kind."""
    return tag_of(value) == tag


def each_value(value: Any) -> Iterator[Any]:
    """A value and all that are in it, each before what it contains. Without recursion."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, Mapping):
            waiting += reversed(list(found.values()))
        elif isinstance(found, list | tuple):
            waiting += reversed(found)


def short(value: Any, most: int = LONGEST_SHOWN) -> str:
    """A value for a sentence: its author's text in quotes, nothing that hides or breaks lines, and cut."""
    text = f"[{', '.join(map(_one, value))}]" if isinstance(value, list) else _one(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _one(value: Any) -> str:
    """A value, in which dicts by name show what they have, one level deep."""
    if isinstance(value, Mapping) and tag_of(value) is None:
        return "{" + ", ".join(f"{plain(name)}: {_tagged(one)}" for name, one in value.items()) + "}"
    return _tagged(value)


def _tagged(value: Any) -> str:
    match value:
        case {"$table": str(name)}:
            return f"table {_quoted(name)}"
        case {"$model": str(name)}:
            return f"model {_quoted(name)}"
        case {"$result": [position, [*path]]}:
            whose = f"request {position}" if isinstance(position, int) else "another run"
            return f"result of {whose}" + "".join(f", {_quoted(part)}" for part in path)
        case {"$columns": [{"$table": _} | {"$result": _} as table, [*names]]}:
            return f"{_quoted(names)} of {_tagged(table)}"
        case {"$renamed": [table, dict(names)]}:
            given = ", ".join(f"{plain(old)} as {_quoted(new)}" for old, new in names.items())
            return f"{_tagged(table)} with {given}"
        case {"$estimator": [str(name), dict(options)]}:
            given = ", ".join(f"{plain(key)}={_quoted(one)}" for key, one in options.items())
            return f"{plain(name)}({given})"
        case {"$expression": [_, [*operations]]}:
            return _formula(operations)
    return _quoted(value)


def _formula(operations: Sequence[Any]) -> str:
    """A column's arithmetic as people write it, each operation after those that it uses."""
    texts: list[str] = []

    def operand(value: Any) -> str:
        match value:
            case {"$node": int(place)} if 0 <= place < len(texts):
                return texts[place]
        return _quoted(value)

    for operation in operations:
        match operation:
            case ["column", [str(name)], _]:
                text = plain(name)
            case [str(name), [first, second], _] if name in SIGNS:
                text = f"({operand(first)} {SIGNS[name]} {operand(second)})"
            case [str(name), [*given], dict(options)]:
                named = [f"{plain(key)}={operand(one)}" for key, one in options.items()]
                text = f"{plain(name.strip('_'))}({', '.join([*map(operand, given), *named])})"
            case _:
                text = _quoted(operation)
        texts.append(text if len(text) <= LONGEST_FORMULA else f"{text[: LONGEST_FORMULA - 3]}...")
    return texts[-1] if texts else "nothing"


def _quoted(value: Any) -> str:
    return ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)


def plain(name: Any) -> str:
    """A name for a sentence: in quotes unless it is a plain word."""
    return name if isinstance(name, str) and name.isidentifier() else _quoted(name)


# -- the same request ----------------------------------------------------------------------------------------


def matches(
    study: Study, position: int, request: Asked, done: Mapping[str, int], defaults: Mapping[str, Any]
) -> None:
    """Raise ConsentError unless a request is the one that the study has at a position.

    `done` says which computations of this run, by id in hexadecimal, were at which position: what was the
    result of a request when it was recorded has to be the result of that request in this run. An argument
    that was not recorded has its value of `defaults`, as one that an earlier release did not know. The
    sentence names the argument that differs.
    """
    if not 1 <= position <= len(study.requests):
        raise ConsentError(
            f"study {study.number} has {len(study.requests)} requests, and this would be request {position}, "
            f"{plain(request.computation)}; record the notebook anew, and propose that"
        )
    recorded = study.requests[position - 1]
    if recorded.computation != request.computation:
        raise ConsentError(
            f"request {position} was recorded as {plain(recorded.computation)}, and is "
            f"{plain(request.computation)} now; record the notebook anew, and propose that"
        )
    later = defaults.keys() - recorded.arguments.keys()
    arguments = {
        name: value
        for name, value in request.arguments.items()
        if name not in later or not _same(defaults[name], value)
    }
    found = difference(recorded.arguments, arguments, done)
    if found is not None:
        name, before, now = found
        what = f"request {position}, {plain(recorded.computation)}: {plain(name)}"
        raise ConsentError(
            f"{what} {_was(before)}, and is {_is(now)} now; "
            "run it as it was recorded, or record the notebook anew and propose that"
        )


@attrs.frozen
class _Absent:
    """What is not given."""


ABSENT = _Absent()


def _was(value: Any) -> str:
    return "was left at its default" if value is ABSENT else f"was recorded as {short(value)}"


def _is(value: Any) -> str:
    return "left at its default" if value is ABSENT else short(value)


def difference(
    recorded: Mapping[str, Any], now: Mapping[str, Any], done: Mapping[str, int]
) -> tuple[str, Any, Any] | None:
    """The name of the first argument that differs, as it was recorded and as it is; None if none does.

    Of estimators and dicts it is the option within. Without recursion.
    """
    waiting: list[tuple[str, Any, Any, tuple[Any, Any]]] = [("", recorded, now, (recorded, now))]
    while waiting:
        name, before, after, shown = waiting.pop()
        if is_tagged(before, RESULT) or is_tagged(after, RESULT):
            after = _at_its_position(after, done)
            if before != after:
                return name, before, after
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            keys = list(dict.fromkeys([*before, *after]))
            for key in reversed(keys):
                pair = before.get(key, ABSENT), after.get(key, ABSENT)
                waiting.append((name, *pair, shown) if str(key).startswith("$") else (str(key), *pair, pair))
        elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
            if len(before) != len(after):
                return name, *shown
            waiting += [(name, *pair, shown) for pair in reversed(list(zip(before, after, strict=True)))]
        elif not _same(before, after):
            return name, *shown
    return None


def _same(before: Any, after: Any) -> bool:
    """Whether plain values are equal; True is no 1, though 1.0 is."""
    numbers = (int, float)
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    if isinstance(before, numbers) and isinstance(after, numbers):
        return before == after
    return type(before) is type(after) and bool(before == after)


def _at_its_position(value: Any, done: Mapping[str, int]) -> Any:
    """A reference to the result of a computation, as one to that of a request of this run."""
    match value:
        case {"$result": [bytes() | str() as computation, [*path]]}:
            named = computation.hex() if isinstance(computation, bytes) else computation
            return {RESULT: [done.get(named, ""), path]}
        case {"$result": [_, [*path]]}:
            return {RESULT: ["", path]}
    return value


# -- signatures ----------------------------------------------------------------------------------------------


@attrs.frozen
class StudyApproval:
    """An owner's signature under a study, as it travels: for so many runs of it, until a time in seconds.

    Owners may allow fewer runs than the study asks for, or an earlier end.
    """

    digest: bytes
    approver: str
    uses: int
    expires: int
    signature: bytes = attrs.field(default=b"", repr=False)

    def _message(self, lake: bytes) -> bytes:
        packed: bytes = msgpack.packb([lake, self.digest, self.approver, self.uses, self.expires])
        return packed

    @classmethod
    def make(
        cls,
        lake: bytes,
        study: Study,
        keys: MemberKeys,
        *,
        uses: int | None = None,
        expires: int | None = None,
    ) -> StudyApproval:
        """Sign a study's digest."""
        most = study.uses if uses is None else uses
        until = study.until if expires is None else expires
        unsigned = cls(study.digest(), keys.identity.name, min(most, study.uses), min(until, study.until))
        return attrs.evolve(unsigned, signature=keys.sign(PURPOSE, unsigned._message(lake)))

    def check(self, lake: bytes, study: Study, certificates: Sequence[str]) -> None:
        """Raise ConsentError unless this approves that study, now, with the key of one of these."""
        who, message = self.approver, self._message(lake)
        if not any(verify(one, PURPOSE, message, self.signature) for one in certificates):
            raise ConsentError(f"the approval in the name of {who} is not signed with the key of {who}")
        if self.digest != study.digest():
            raise ConsentError(f"{who} has approved another study than this one; show it to {who} again")
        if not 1 <= self.uses <= study.uses or self.expires > study.until:
            raise ConsentError(f"the approval of {who} allows more than study {study.number} asks for")
        if time.time() > self.expires:
            raise ConsentError(f"the approval of {who} has expired; ask {who} again, with a new study")


RUN_BYTES, POSITION_BYTES = 16, 2
"""Of what a request says of its study: the run, and the request's position."""


def study_step(run: bytes, position: int) -> bytes:
    """What a request says of the study that it belongs to."""
    return run + position.to_bytes(POSITION_BYTES, "big")


def read_step(packed: bytes) -> tuple[bytes, int]:
    """The run and the position that a request says. Raises ConsentError."""
    if len(packed) != RUN_BYTES + POSITION_BYTES:
        raise ConsentError("what a request says of its study is malformed; look at the client's release")
    return packed[:RUN_BYTES], int.from_bytes(packed[RUN_BYTES:], "big")

"""What owners allow: who may use a table, for which computations, and what may be revealed of it to whom.

Rules travel with an upload and are kept by every node, which enforces them by itself. They hold for the table
and for everything that is computed from it, until it is revealed. What an owner does not say is denied: then
each computation waits for the owner, and some are refused whoever signs. `tercet.members.decisions` applies
rules to computations that nodes know by name; `Rules.check` applies them to plans, by what a walk finds.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
import msgpack

from tercet.errors import ConsentError
from tercet.plans.types import CLASSES, SIZES, DisclosureClass, Sizes

if TYPE_CHECKING:
    from tercet.plans.review import Review

Plans = Literal["any", "approved"]

Group = Literal["tables", "statistics", "models", "predictions", "rows"]
"""Computations of a kind: those that make tables, describe them, fit models, predict, and reveal rows."""
GROUPS: tuple[Group, ...] = get_args(Group)

PARAMETERS_PER_ROW = 0.33
"""What DataSHIELD lets a model have at most (its `nfilter.glm`): one of more parameters tells rows."""
USUAL: tuple[DisclosureClass, ...] = ("check", "count", "figure")
"""What computations that are named as free may reveal without approval, if the owner does not say."""
LONGEST_NAME = 200
MOST_COUNT = 10**15
"""Rows or computations: so many nodes can note, and more than any lake has."""


def _several(given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise ConsentError(f"rules have lists of names, not {given!r:.80}; write [{given!r:.80}]")
    return tuple(given)


@attrs.frozen
class Rules:
    """An owner's rules for a table or model. Raises ConsentError for rules that mean nothing.

    - `readers` are members who may use it, all analysts if empty.
    - `plans`: with "approved", each computation of theirs waits until the owner has signed it; with "any",
      none does. Plans by hand wait for all owners in either case where nodes tell them from computations.
    - `computations` need no signature though `plans` is "approved": names, or groups of them (see `Group`).
      `concat` with tables of other owners needs one unless it is named, whatever `plans` are.
    - `classes` of disclosures may leave without a signature. If None, all may with `plans="any"`, else those
      of `USUAL`.
    - `rows` lets single rows be revealed; without it, nobody gets one, with or without a signature.
    - `columns` may be used; all if empty. That holds for values of columns, not for keys that rows are
      matched by.
    - `receivers` are the only members besides the owner to whom results may go, except for check bits, which
      whoever computes needs. If empty, they are who computes, readers, and owners of the tables used.
    - `min_count`: figures must rest on as many rows, also after a join.
    - `parameters_per_row`: no fit may have more parameters for each row that it rests on.
    - `sizes`: what nodes may be told of how many rows match in a join, have one key, or are kept by a filter:
      "exact" is anything, "noisy" a count with noise or nothing, "hidden" nothing. Figures of what comes of
      it tell members how many rows count, by the classes of these figures.
    - `uses`: so many computations of others may use it. `until`: so many seconds since 1970, none after.
    """

    readers: tuple[str, ...] = attrs.field(default=(), converter=_several)
    plans: Plans = "approved"
    min_count: int = 1
    rows: bool = False
    computations: tuple[str, ...] = attrs.field(default=(), converter=_several, kw_only=True)
    columns: tuple[str, ...] = attrs.field(default=(), converter=_several, kw_only=True)
    classes: tuple[DisclosureClass, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_several), kw_only=True
    )
    receivers: tuple[str, ...] = attrs.field(default=(), converter=_several, kw_only=True)
    parameters_per_row: float = attrs.field(default=PARAMETERS_PER_ROW, kw_only=True)
    sizes: Sizes = attrs.field(default="exact", kw_only=True)
    uses: int | None = attrs.field(default=None, kw_only=True)
    until: float | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if wrong := _wrong(self):
            raise ConsentError(wrong)

    def to_bytes(self) -> bytes:
        """For the wire and the catalog."""
        packed: bytes = msgpack.packb(attrs.asdict(self))
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> Rules:
        """What `to_bytes` gave, in this release or the first one. Raises ConsentError for anything else."""
        try:
            match msgpack.unpackb(packed):
                case [list(readers), str(plans), int(least), bool(rows)]:
                    return cls(tuple(readers), "any" if plans == "any" else _approved(plans), least, rows)
                case dict(fields):
                    return cls(**fields)
        except (ValueError, TypeError, msgpack.UnpackException, ConsentError) as error:
            raise ConsentError(f"what came as rules of an owner is malformed ({error})") from error
        raise ConsentError("what came as rules of an owner is malformed: there are no such rules")

    @property
    def least(self) -> int:
        """Rows that a figure must rest on: one row is no figure, unless single rows may be revealed."""
        return max(self.min_count, 1 if self.rows else 2)

    def least_for(self, caller: str, owner: str) -> int:
        """The same for a member's figures; owners may see rows of their own, unless they said otherwise."""
        return self.min_count if caller == owner else self.least

    @property
    def freely(self) -> tuple[DisclosureClass, ...]:
        """Classes of disclosures that need no approval."""
        if self.classes is not None:
            return self.classes
        return CLASSES if self.plans == "any" else USUAL

    def frees(self, computation: str, group: str) -> bool:
        """Whether a computation needs no approval, as far as its disclosures do not."""
        return self.plans == "any" or not {computation, group}.isdisjoint(self.computations)

    def lets(self, owner: str, caller: str, roles: Sequence[str] | frozenset[str]) -> bool:
        """Whether a member may use what the rules are for."""
        return caller == owner or caller in self.readers or (not self.readers and "analyst" in roles)

    def check(self, table: str, owner: str, caller: str, roles: Sequence[str], review: Review) -> None:
        """Raise ConsentError unless a member may have a plan run that reads a table."""
        if caller == owner:
            return
        if not self.lets(owner, caller, roles):
            raise ConsentError(f"{owner} does not let {caller} use table {table!r}; ask {owner}")
        shown = review.rows_of(table)
        if shown and not self.rows:
            raise ConsentError(
                f"{owner} does not let single rows of table {table!r} be revealed, and the plan would reveal "
                f"{shown[0]}; reveal figures over many rows"
            )
        fewest = review.fewest.get(table, self.least)
        if fewest < self.least:
            raise ConsentError(
                f"{owner} lets figures of table {table!r} rest on no fewer than {self.least} rows, and the "
                f"plan has one over {fewest}"
            )
        apart = review.apart.get(table, self.least)
        if apart < self.least:
            raise ConsentError(
                f"{owner} lets figures of table {table!r} rest on no fewer than {self.least} rows, and the "
                f"plan cuts the rows into parts of which one has {apart}: figures over parts with it and "
                "without it would tell of those alone"
            )

    def __str__(self) -> str:
        return "; ".join(_sentences(self))


def _approved(plans: str) -> Plans:
    if plans != "approved":
        raise ValueError(f"plans are 'any' or 'approved', not {plans!r:.80}")
    return "approved"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf


def _wrong(rules: Rules) -> str:
    """What is wrong with rules, in a sentence; empty if nothing is."""
    lists: Mapping[str, tuple[Any, ...]] = {
        "readers": rules.readers,
        "computations": rules.computations,
        "columns": rules.columns,
        "receivers": rules.receivers,
    }
    for name, listed in lists.items():
        for one in listed:
            if not isinstance(one, str) or len(one) > LONGEST_NAME:
                return f"{name} of rules are names of up to {LONGEST_NAME} characters, not {one!r:.80}"
    if not isinstance(rules.plans, str) or rules.plans not in get_args(Plans):
        return f"plans={rules.plans!r:.80} is not known; say 'any' or 'approved'"
    if not _is_whole(rules.min_count, 1):
        return f"min_count={rules.min_count!r:.80} is no number of rows; say 1 or more"
    if not isinstance(rules.rows, bool):
        return f"rows={rules.rows!r:.80} is neither True nor False"
    if rules.plans == "any" and rules.computations:
        return (
            "plans='any' lets readers run every computation without approval, so computations= says nothing "
            "beside it; leave plans at 'approved' to name those that are free"
        )
    for one in rules.classes or ():
        if one not in CLASSES:
            return f"there is no class of disclosures {one!r:.80}; name some of {', '.join(CLASSES)}"
    if not _is_positive(rules.parameters_per_row):
        return (
            f"parameters_per_row={rules.parameters_per_row!r:.80} is no number above 0; "
            f"the usual one is {PARAMETERS_PER_ROW}"
        )
    if not isinstance(rules.sizes, str) or rules.sizes not in SIZES:
        return f"sizes={rules.sizes!r:.80} is not known; say one of {', '.join(map(repr, SIZES))}"
    if rules.uses is not None and not _is_whole(rules.uses, 1):
        return f"uses={rules.uses!r:.80} is no number of computations; say 1 or more, or None for any number"
    for name, count in (("min_count", rules.min_count), ("uses", rules.uses or 0)):
        if count > MOST_COUNT:
            return f"{name}={count!r:.80} is more than {MOST_COUNT:,}"
    if rules.until is not None and not (_is_positive(rules.until) and rules.until < _LATEST):
        return f"until={rules.until!r:.80} is no time between 1970 and 9999"
    return ""


_LATEST = dt.datetime(9999, 1, 1, tzinfo=dt.UTC).timestamp()

_REVEALED: Mapping[DisclosureClass, str] = {
    "check": "check bits",
    "count": "counts",
    "figure": "figures",
    "model": "parameters of models",
    "rows": "a number for each row",
}


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _sentences(rules: Rules) -> list[str]:
    """Rules in words, those that differ from what goes without saying."""
    who = f"{_listed(rules.readers)} may use it" if rules.readers else "every analyst may use it"
    freely = [_REVEALED[one] for one in CLASSES if one in rules.freely]
    told = f"what reveals {_listed(freely, 'or')}" if freely else "what reveals nothing"
    if rules.plans == "any":
        everything = set(rules.freely) == set(CLASSES)
        free = "any computation without approval" if everything else f"{told} without approval"
    elif rules.computations:
        free = f"{_listed(rules.computations)} without approval, {told}; the rest with the owner's approval"
    else:
        free = "each computation with the owner's approval"
    found = [f"{who}, {free}"]
    if rules.columns:
        found.append(f"only columns {_listed(rules.columns)}")
    found.append("single rows may be revealed" if rules.rows else "no single rows")
    if rules.min_count > 1:
        found.append(f"figures over {rules.min_count} rows or more")
    if rules.receivers:
        found.append(f"results to {_listed(rules.receivers)} only")
    if rules.parameters_per_row != PARAMETERS_PER_ROW:
        found.append(f"models of at most {rules.parameters_per_row:g} parameters a row")
    if rules.sizes != "exact":
        told = "with noise at most" if rules.sizes == "noisy" else "to nobody"
        found.append(f"joins tell how many rows match {told}")
    if rules.uses is not None:
        found.append(f"{rules.uses} computation{'' if rules.uses == 1 else 's'} at most")
    if rules.until is not None:
        found.append(f"until {moment(rules.until)}")
    return found


def moment(seconds: float) -> str:
    """A time in words, to the minute."""
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M} UTC"


TABLE, MODEL, NUMBER = "table", "model", "number"

LATEST = 253_402_300_800.0
"""The year 10,000, in seconds since 1970: calendars of members end there."""

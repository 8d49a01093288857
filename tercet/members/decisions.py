"""Whether a computation may run: refused, let through, or left to owners.

A computation is asked for by name, and each node builds its plan by itself, so what it uses and reveals is
known without a look at the plan's nodes. `decide` holds these facts against the rules of every table that the
computation rests on, directly or by what was made from it. Each table's rules have to be kept, so the
strictest of all counts. It is a function of its arguments alone, and nodes that know the same decide alike.

Of a plan by hand nobody knows more than its author says. Every owner but its caller has to approve it, and
the classes of what it reveals count for nothing: `Rules.check` looks for single rows in it instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from tercet.members.rules import Rules, moment
from tercet.plans.plan import Plan
from tercet.plans.types import NODES, SIZES, DisclosureClass, Sizes

TO_CALLER = "analyst"
"""The receiver in plans that stands for whoever has them run."""

POOLING = frozenset({"concat"})
"""Computations that put rows of several owners together. An owner signs these, or names them as free: minimum
counts hold for all rows together, and whoever has put some of them in knows those."""

ASSIGN = "assign", "tables"
"""The computation of new columns, and its group; others make some on their way, as fits by a formula."""

COMPACTING = ("filter", "dropna")
"""Computations that tell how many rows are kept if they are asked to leave the others out."""


@attrs.frozen
class Result:
    """Something that a computation reveals to a member, and its class ("" if that is not known).

    `rows` is how many rows it rests on, None if that is secret (then the plan keeps minimum counts itself).
    `tables` are those whose rows it tells one by one, if it does; None if that can be any.
    """

    what: str
    kind: DisclosureClass | Literal[""]
    receiver: str
    rows: int | None = None
    tables: frozenset[str] | None = None

    def kind_for(self, table: str, over: frozenset[str] | None = None) -> DisclosureClass:
        """What it is to the owner of a table, if the computation goes over the rows of the tables `over`.

        A model's predictions for the rows of others tell of the model, and so do its metrics on these.
        """
        kind = self.kind or "rows"
        told = self.tables if kind == "rows" else over
        elsewhere = told is not None and table not in told
        return "model" if elsewhere and kind in ("rows", "figure", "count") else kind


@attrs.frozen(kw_only=True)
class Asked:
    """A computation that a member asks for, and what is known of it.

    `columns` are those whose values it uses, by table; a table that is missing has any of its columns used.
    `over` are the tables over whose rows it goes, if that is known; what it reveals rests on others through
    models only, or what else was learned from them. `assigns` says that it computes new columns on its way,
    which owners have to have named as free too. `parameters` and `rows` are those of a fit, the intercept
    among them, and the rows of its smallest part if it has several. `sizes` is what nodes are told of how
    many rows match or are kept, None for nothing of that sort. `uses` are the computations of others so
    far, by table (none if it is missing), `analysts` all members with that role, and `now` is in seconds
    since 1970.
    """

    caller: str
    roles: frozenset[str]
    computation: str
    group: str
    by_hand: bool
    columns: Mapping[str, frozenset[str]]
    results: tuple[Result, ...]
    now: float
    assigns: bool = False
    over: frozenset[str] | None = None
    parameters: int | None = None
    rows: int | None = None
    sizes: Sizes | None = None
    uses: Mapping[str, int] = attrs.field(factory=dict)
    analysts: frozenset[str] = frozenset()


@attrs.frozen
class Verdict:
    """What owners' rules say: the sentence that refuses, if any, or the owners who must approve."""

    refusal: str = ""
    owners: frozenset[str] = frozenset()


def decide(rules: Mapping[str, tuple[str, Rules]], asked: Asked) -> Verdict:
    """Whether a computation that rests on some tables, each with its owner and rules, may run.

    Rules bind members other than the owner. A refusal names the first table, by name, whose rules forbid it.
    """
    owners = frozenset(owner for owner, _ in rules.values())
    must = set()
    for table, (owner, rule) in sorted(rules.items()):
        if owner == asked.caller:
            continue
        for refusal in _refusals(table, owner, rule, asked, owners):
            return Verdict(refusal)
        named = asked.computation in rule.computations or asked.computation not in POOLING or len(owners) < 2
        free = not asked.by_hand and named and rule.frees(asked.computation, asked.group)
        free = free and (rule.frees(*ASSIGN) or not asked.assigns)
        if not free or any(result.kind_for(table, asked.over) not in rule.freely for result in asked.results):
            must.add(owner)
    return Verdict(owners=frozenset(must))


def results_of(plan: Plan, caller: str) -> tuple[Result, ...]:
    """What a plan reveals to members; not what it opens to the nodes."""
    return tuple(
        Result(one.what, one.kind, caller if one.to == TO_CALLER else one.to)
        for one in plan.disclosures()
        if one.to != NODES
    )


def assigns(computation: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a computation, which is not "assign" itself, computes new columns on its way."""
    return computation != ASSIGN[0] and arguments.get("expressions") is not None


def sizes_told(computation: str, arguments: Mapping[str, Any], counted: Sizes | None = None) -> Sizes | None:
    """What a computation tells the nodes of how many rows match, have one key or are kept by a filter.

    `counted` is what its plan opens of that, if it is at hand: of computations of other packages, too.
    """
    told = _sizes_asked(computation, arguments)
    return min((one for one in (told, counted) if one is not None), key=SIZES.index, default=None)


def _sizes_asked(computation: str, arguments: Mapping[str, Any]) -> Sizes | None:
    if computation == "concat":
        return None if arguments.get("duplicates") == "keep" else SIZES[0]
    if computation in ("join", "group_rows"):
        given = arguments.get("sizes", SIZES[0])
        return given if given in SIZES else SIZES[0]
    return SIZES[0] if computation in COMPACTING and arguments.get("compact") else None


def used_up(table: str, owner: str, used: int, rules: Rules) -> str:
    """Why a table may be used no more."""
    return (
        f"table {table!r} has been used by {used} computations, and {owner} allows {rules.uses}; ask {owner} "
        "to allow more"
    )


def _refusals(table: str, owner: str, rules: Rules, asked: Asked, owners: frozenset[str]) -> Iterator[str]:
    """Why a table's rules refuse a computation, whoever approves it."""
    if not rules.lets(owner, asked.caller, asked.roles):
        yield f"{owner} does not let {asked.caller} use table {table!r}; ask {owner}"
    if rules.until is not None and asked.now >= rules.until:
        yield (
            f"{owner} let table {table!r} be used until {moment(rules.until)}, and that is over; ask {owner} "
            "to allow it for longer"
        )
    used = asked.uses.get(table, 0)
    if rules.uses is not None and used >= rules.uses:
        yield used_up(table, owner, used, rules)
    yield from _of_columns(table, owner, rules, asked)
    yield from _of_receivers(table, owner, rules, asked, owners)
    if not asked.by_hand:
        yield from _of_results(table, owner, rules, asked)
        yield from _of_fits(table, owner, rules, asked)
        yield from _of_sizes(table, owner, rules, asked)


def _of_columns(table: str, owner: str, rules: Rules, asked: Asked) -> Iterator[str]:
    if not rules.columns:
        return
    allowed = f"{owner} lets only {_named(rules.columns)} of table {table!r} be used"
    used = asked.columns.get(table)
    if used is None:
        yield (
            f"{allowed}, and it is not known which columns {_what(asked)} uses; ask for a computation by "
            "name, on columns of the table"
        )
    elif more := sorted(used - set(rules.columns)):
        yield f"{allowed}, and {_what(asked)} uses {_named(more)}; leave that out, or ask {owner}"


def _of_receivers(
    table: str, owner: str, rules: Rules, asked: Asked, owners: frozenset[str]
) -> Iterator[str]:
    usual = owners | {asked.caller, *rules.readers} | (frozenset() if rules.readers else asked.analysts)
    allowed = {owner, *rules.receivers} if rules.receivers else usual
    for result in asked.results:
        needed = result.kind == "check" and result.receiver == asked.caller and not asked.by_hand
        if result.receiver not in allowed and not needed:
            yield (
                f"{owner} lets results of table {table!r} go to {', '.join(sorted(allowed))} only, and "
                f"{result.what!r} would go to {result.receiver}; reveal it to one of them, or ask {owner}"
            )


def _of_results(table: str, owner: str, rules: Rules, asked: Asked) -> Iterator[str]:
    for result in asked.results:
        kind = result.kind_for(table, asked.over)
        if kind == "rows" and not rules.rows:
            yield (
                f"{owner} does not let single rows of table {table!r} be revealed, and {result.what!r} has a "
                "number for each row; reveal figures over many rows"
            )
        if kind not in ("check", "rows") and result.rows is not None and result.rows < rules.least:
            yield (
                f"{owner} lets figures of table {table!r} rest on no fewer than {rules.least} rows, and "
                f"{result.what!r} rests on {result.rows}; compute it over more rows"
            )


def _of_fits(table: str, owner: str, rules: Rules, asked: Asked) -> Iterator[str]:
    if asked.parameters is None:
        return
    allowed = (
        f"{owner} lets models on table {table!r} have at most {rules.parameters_per_row:g} parameters a row"
    )
    if asked.rows is None:
        yield f"{allowed}, and it is not known on how many rows {_what(asked)} rests; fit on a table"
    elif asked.parameters > rules.parameters_per_row * asked.rows:
        rows = math.ceil(asked.parameters / rules.parameters_per_row)
        yield (
            f"{allowed}, and {_what(asked)} has {asked.parameters} on {asked.rows} rows; leave out features, "
            f"or fit on {rows} rows or more"
        )


MENDS = {
    **dict.fromkeys(COMPACTING, "leave compact out"),
    "join": "join with sizes={!r}",
    "group_rows": "group with sizes={!r}",
    "concat": "put tables together with duplicates='keep'",
}
"""How computations tell the nodes less of sizes."""


def _of_sizes(table: str, owner: str, rules: Rules, asked: Asked) -> Iterator[str]:
    if asked.sizes is not None and SIZES.index(asked.sizes) < SIZES.index(rules.sizes):
        mend = MENDS.get(asked.computation, f"ask {owner}").format(rules.sizes)
        yield (
            f"{owner} does not let nodes be told how many rows match those of table {table!r}"
            f"{' without noise' if rules.sizes == 'noisy' else ''}, and {_what(asked)} would; {mend}"
        )


def _what(asked: Asked) -> str:
    """What messages call a computation."""
    return "this plan" if asked.by_hand else f"{asked.computation!r}"


def _named(columns: Iterable[str]) -> str:
    """Columns as messages name them."""
    return ", ".join(map(repr, columns))

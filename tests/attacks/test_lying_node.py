"""One of four nodes lies, in every place where a node can: it is caught, and nothing of the run is left.

Among three nodes that are trusted to follow the protocol, the same lies change coefficients unseen, and tell
whether a person is in the other table: whoever spoils one row's key before a shuffle sees by the number of
matches whether that row was one. What an honest node hears of such a run here is the error alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet.actors.party import Party
from tercet.errors import ProtocolError
from tercet.ml import LogisticRegression
from tercet.protocols import joint, quad_shuffle, rep4
from tercet.protocols.rep4 import Rep4

ROWS = 60
OFF = np.uint64(1 << 25)
RNG = np.random.default_rng(0)
AGE, COST = RNG.normal(size=ROWS).round(3), RNG.normal(size=ROWS).round(3)
CLINIC = pd.DataFrame(
    {"k": np.arange(ROWS), "age": AGE, "sick": (AGE + COST + RNG.normal(size=ROWS) > 0) * 1}
)
INSURER = pd.DataFrame({"k": np.arange(ROWS)[:40], "cost": COST[:40]})


def off(words):
    """Words of which the first is changed."""
    changed = np.array(words, copy=True)
    if changed.size:
        changed.reshape(-1)[0] += OFF
    return changed


def says_otherwise(monkeypatch, liar):
    """What it tells others is not what it goes on with."""
    for module in (joint, quad_shuffle, rep4):
        tell = module.tell

        def lying(protocol, messages, known, tell=tell):
            if protocol.party == liar:
                known = [None if words is None else off(words) for words in known]
            return (yield from tell(protocol, messages, known))

        monkeypatch.setattr(module, "tell", lying)


def vouches_wrongly(monkeypatch, liar):
    """What it sends is true, what it vouches for is not."""
    for module in (joint, quad_shuffle, rep4):
        tell = module.tell

        def lying(protocol, messages, known, tell=tell):
            if protocol.party == liar:
                known = [
                    off(words) if words is not None and message.sender != liar else words
                    for message, words in zip(messages, known, strict=True)
                ]
            return (yield from tell(protocol, messages, known))

        monkeypatch.setattr(module, "tell", lying)


def works_on_something_else(monkeypatch, liar):
    """It shares something else than it should, and stays with that."""
    deal_sum = joint.deal_sum

    def lying(protocol, domain, roles, values, fill=None):
        if protocol.party == liar:
            if fill is not None:
                fill(0, values[0].size)
            values = np.stack([off(row) for row in values])
            fill = None
        return deal_sum(protocol, domain, roles, values, fill)

    monkeypatch.setattr(joint, "deal_sum", lying)


def deals_something_else(monkeypatch, liar):
    """Its functions of what its pair knows are wrong."""
    deal = joint.deal

    def lying(protocol, domain, *values):
        if protocol.party == liar:
            values = [(pair, None if v is None else off(v), shape) for pair, v, shape in values]
        return deal(protocol, domain, *values)

    monkeypatch.setattr(joint, "deal", lying)


def opens_something_else(monkeypatch, liar):
    """It works on the truth, and opens something else."""
    opening = Rep4.opening

    def lying(self, x):
        return opening(self, x.like(off(x.data)) if self.party == liar else x)

    lying.declared_cost = opening.declared_cost
    monkeypatch.setattr(Rep4, "opening", lying)


def spoils(rows):
    def lie(monkeypatch, liar):
        """It changes some rows before they are shuffled."""
        permute = quad_shuffle._permute

        def lying(protocol, tables, held, out, *, last):
            if protocol.party == liar:
                for parts in held:
                    for component, words in parts.items():
                        parts[component] = words.copy()
                        parts[component][[row for row in rows if row < len(words)]] ^= np.uint64(0x123456789)
            return permute(protocol, tables, held, out, last=last)

        monkeypatch.setattr(quad_shuffle, "_permute", lying)

    return lie


def reveals(part):
    def reveals_wrongly(monkeypatch, liar):
        """What it sends to the receiver of a result is wrong."""
        export = Rep4.export

        def lying(self, x):
            parts = export(self, x)
            if self.party == liar:
                parts[part] = off(parts[part])
            return parts

        monkeypatch.setattr(Rep4, "export", lying)

    return reveals_wrongly


def draws_something_else(monkeypatch, liar):
    """Its random words are not those that the others draw."""
    random = Rep4.random

    def lying(self, shape, **more):
        x = random(self, shape, **more)
        return x.like(off(x.data)) if self.party == liar else x

    monkeypatch.setattr(Rep4, "random", lying)


def join(lake):
    clinic = lake.upload(CLINIC, name="a", key="k", owner="clinic")
    insurer = lake.upload(INSURER, name="b", key="k", owner="insurer")
    return clinic.join(insurer, on="k")


def fit(lake):
    clinic = lake.upload(CLINIC, name="a", key="k", owner="clinic")
    return LogisticRegression(solver="gd", max_iter=2).fit(clinic, target="sick").reveal().coef_


def shuffled_by_size(lake):
    """A figure that rests on a sort: comparisons, shuffles, openings."""
    clinic = lake.upload(CLINIC, name="a", key="k", owner="clinic")
    return clinic.describe(["age"], statistics=["median"])


LIES = [
    ("says otherwise", says_otherwise, join),
    ("says otherwise", says_otherwise, fit),
    ("vouches wrongly", vouches_wrongly, join),
    ("vouches wrongly", vouches_wrongly, fit),
    ("works on something else", works_on_something_else, join),
    ("works on something else", works_on_something_else, fit),
    ("deals something else", deals_something_else, join),
    ("deals something else", deals_something_else, fit),
    ("opens something else", opens_something_else, join),
    ("opens something else", opens_something_else, shuffled_by_size),
    ("spoils a row that matches", spoils([7]), join),
    ("spoils a row without a match", spoils([50]), join),
    ("spoils all rows but one", spoils([i for i in range(40) if i != 7]), join),
    ("spoils a row of a sort", spoils([3]), shuffled_by_size),
    ("reveals a wrong component", reveals(0), fit),
    ("reveals a wrong digest", reveals(1), fit),
    ("reveals another wrong digest", reveals(2), fit),
    ("draws something else", draws_something_else, join),
]


EVERY_LIAR = [
    pytest.param(
        lie,
        work,
        liar,
        id=f"{name}, {work.__name__}, party {liar}",
        marks=[] if liar == index % 4 else pytest.mark.scale,
    )
    for index, (name, lie, work) in enumerate(LIES)
    for liar in range(4)
]


@pytest.mark.parametrize(("lie", "work", "liar"), EVERY_LIAR)
def test_a_lie_is_caught_and_two_parties_are_named(monkeypatch, lie, work, liar):
    answers, kept = [], []
    run_plan = Party.run_plan

    async def noted(party, *args, **more):
        before = set(party.store)
        try:
            outcome = await run_plan(party, *args, **more)
            answers.append((party.index, outcome))
            return outcome
        finally:
            kept.append(set(party.store) - before)

    with tercet.local(protocol="rep4") as lake:
        lie(monkeypatch, liar)
        monkeypatch.setattr(Party, "run_plan", noted)
        with pytest.raises(ProtocolError, match=r"part(y|ies) \d") as caught:
            work(lake)
    assert str(liar) in str(caught.value)
    assert "faulty" in str(caught.value)
    if lie.__name__ != "reveals_wrongly":  # which the receiver notices, outside
        assert not any(party != liar for party, _ in answers[-4:] if answers)
        assert not any(kept[-4:])


@pytest.mark.parametrize("work", [join, fit, shuffled_by_size])
def test_the_truth_passes(work):
    with tercet.local(protocol="rep4") as lake:
        work(lake)

"""Keys that occur twice: one person's row would count as many, and a figure over it rest on enough.

That keys are unique is checked by the uploader's own client, so an attacker's does not. The nodes do.
"""

from __future__ import annotations

import numpy as np
import pytest

from tercet import Allow
from tercet.errors import PlanError, TercetError
from tercet.plans import Form, Type
from tests.attacks.lake import ROWS, values_of


@pytest.fixture
def unchecked(monkeypatch):
    """A client that uploads whatever it is told to."""
    from tercet.ml import ingest

    monkeypatch.setattr(ingest, "find_duplicate_in_parts", lambda *_, **__: None)


async def upload_own(attacked, ids, name="mine"):
    columns = {"id": np.asarray(ids), "x": np.linspace(0, 1, len(ids))}
    await attacked.ann.upload(columns, name=name, key="id", owner="ann", allow=Allow(plans="any"))
    return await attacked.ann.table(name)


@pytest.mark.parametrize(
    "ids",
    [[7] * 60, [7] * 2 + list(range(20, 80)), [*range(59), 58], [7] * 30 + [8] * 30],
    ids=["one person", "one twice", "the last", "two people"],
)
async def test_a_table_with_a_key_twice_is_not_joined(attacked, unchecked, ids):
    victim = await attacked.victim(min_count=50)
    mine = await upload_own(attacked, ids)
    for tables in ((mine, victim), (victim, mine)):
        with pytest.raises(PlanError, match="table 'mine' has keys that occur more than once"):
            await tables[0].join(tables[1], on="id")


async def test_nothing_tells_whether_somebody_is_in_the_table(attacked, unchecked):
    """The error is the same whoever the key is of."""
    victim = await attacked.victim(min_count=50)
    told = set()
    for number, person in enumerate((7, 777)):
        mine = await upload_own(attacked, [person] * 60, f"mine{number}")
        with pytest.raises(PlanError) as raised:
            await mine.join(victim, on="id")
        told.add(str(raised.value).replace(f"mine{number}", "mine"))
    assert len(told) == 1


async def test_a_list_of_her_own_has_no_key_twice_either(attacked):
    """Words that are dealt, and in no table, are matched by the same rule."""
    victim = await attacked.victim(min_count=50)
    words = np.full((2, 60), 7, dtype=np.uint64)
    kind = Type(Form.WORDS, (2, 60))
    await attacked.ann.cluster.client.put("own words", kind, words)
    b = attacked.builder()
    key = b.random_words(2)
    lists = []
    for handle, its in (("own words", kind), (victim.keys.handle, victim.keys.type)):
        (shuffled,) = b.apply_all("shuffle", b.apply("prf", key, b.input(handle, its)))
        lists.append(shuffled.open("pseudonyms of shuffled keys, random words"))
    b.apply("match", *lists, rows="join.rows")
    b.input(victim.parts[0].handle, victim.parts[0].type).sum().reveal("sum", to="analyst")
    with pytest.raises(TercetError, match="list 0 has keys that occur more than once"):
        await attacked.run(b.plan())


async def test_unique_keys_are_joined_as_before(attacked):
    await attacked.victim(min_count=50)
    joined = await attacked.joined()
    assert joined.rows == ROWS
    b = attacked.builder()
    values_of(b, joined).sum().reveal("sum", to="analyst")
    assert (await attacked.run(b.plan())).revealed["sum"] > 0

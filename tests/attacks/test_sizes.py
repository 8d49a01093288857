"""How many rows match is told as far as owners let it be, and joins that tell nothing count nobody twice."""

import numpy as np
import pytest

from tercet import Allow
from tercet.errors import ConsentError, SchemaError
from tercet.plans import Form
from tests.attacks.lake import ROWS

AGE = np.round(np.linspace(20, 80, ROWS), 2)


async def tables(attacked, sizes, *, keys=range(ROWS), **options):
    """The hospital's table, of which ann may be told no more of sizes than that, and one of hers."""
    columns = {"id": np.asarray(keys), "age": AGE, "old": AGE > 50}
    allow = Allow(plans="any", sizes=sizes)
    await attacked.hospital.upload(
        columns, name="ages", key="id", owner="hospital", min_count=10, allow=allow, **options
    )
    mine = {"id": np.arange(0, 2 * ROWS, 2), "x": np.linspace(0, 1, ROWS), "me": np.arange(ROWS) == 7}
    own = {"ranges": {"x": (0, 1)}, "allow": Allow(plans="any")}
    await attacked.ann.upload(mine, name="mine", key="id", owner="ann", **own)
    return await attacked.ann.table("ages"), await attacked.ann.table("mine")


async def test_an_owner_who_wants_sizes_hidden(attacked):
    ages, mine = await tables(attacked, "hidden")
    for sizes in ("exact", "noisy"):
        with pytest.raises(ConsentError, match="does not let nodes be told how many rows match"):
            await ages.join(mine, on="id", sizes=sizes)
        with pytest.raises(ConsentError, match="'group_rows' would; group with sizes='hidden'"):
            await ages.groupby("id").to_table({"age": "max"}, sizes=sizes)
    joined = await ages.join(mine, on="id", sizes="hidden")
    with pytest.raises(ConsentError, match="leave compact out"):
        await joined.filter(joined["x"] > 0, compact=True)
    told = await joined.describe(["age"], statistics=["mean"])
    assert told["age"]["mean"] == pytest.approx(AGE[::2].mean(), abs=0.05)
    left = await ages.join(mine, on="id", how="left", sizes="hidden")
    filled = await left.assign(y=left["x"].fillna(2.0))
    told = await filled.describe(["y"], statistics=["mean"])
    assert told["y"]["mean"] == pytest.approx((np.linspace(0, 1, ROWS)[:50].sum() + 100) / ROWS, abs=0.01)


async def test_an_owner_who_wants_noise(attacked):
    ages, mine = await tables(attacked, "noisy")
    with pytest.raises(ConsentError, match="without noise"):
        await ages.join(mine, on="id")
    with pytest.raises(ConsentError, match="without noise, and 'group_rows' would; group with sizes='noisy'"):
        await ages.groupby("id").to_table({"age": "max"})
    joined = await ages.join(mine, on="id", sizes="noisy")
    told = await joined.describe(["age"], statistics=["mean"])
    assert told["age"]["mean"] == pytest.approx(AGE[::2].mean(), abs=0.05)
    groups = await ages.groupby("id").to_table({"age": "max"}, sizes="noisy")
    told = await groups.describe(["age_max"], statistics=["mean"])
    assert (told["age_max"]["count"], len(groups) > ROWS) == (ROWS, True)
    assert told["age_max"]["mean"] == pytest.approx(AGE.mean(), abs=0.05)


async def test_keys_that_repeat_at_lasting_nodes(attacked):
    """Those of another owner, joined with her own table, of which she may see single rows."""
    ages, mine = await tables(attacked, "hidden", keys=np.arange(ROWS) // 5, unique=False)
    assert not ages.unique
    joined = await ages.join(mine, on="id", validate="m:1", sizes="hidden")
    told = await joined.describe(["age"], statistics=["mean"])
    assert told["age"]["mean"] == pytest.approx(AGE[(np.arange(ROWS) // 5) % 2 == 0].mean(), abs=0.05)


async def test_one_row_does_not_become_many(attacked):
    """Forty rows of hers with one key would make forty of one row of the hospital's."""
    ages, _ = await tables(attacked, "hidden")
    many = {"id": np.full(40, 7), "z": np.linspace(0, 1, 40)}
    own = {"unique": False, "allow": Allow(plans="any")}
    mine = await attacked.ann.upload(many, name="many", key="id", owner="ann", **own)
    for how in ("inner", "left", "right", "outer"):
        with pytest.raises(SchemaError, match="may all be one of its rows"):
            await mine.join(ages, on="id", how=how, validate="m:1", sizes="hidden")


@pytest.mark.parametrize("how", ["inner", "semi", "anti", "outer"])
@pytest.mark.parametrize("known", [3, 10**6])
async def test_no_count_tells_whether_one_person_is_there(attacked, how, known):
    """A list of one key that she knows, and many that nobody has."""
    ages, _ = await tables(attacked, "exact")
    ids = np.append(np.arange(ROWS) + 5000, known)
    listed = {"id": ids, "z": np.linspace(0, 1, len(ids))}
    mine = await attacked.ann.upload(listed, name="list", key="id", owner="ann", allow=Allow(plans="any"))
    with pytest.raises(ConsentError, match=r"rest on no fewer than 10 rows, and (a join has less|less than)"):
        await ages.join(mine, on="id", how=how)


def tenfold(attacked, monkeypatch):
    """All numbers that ann uploads are ten times what she says, her zeros and ones among them."""
    client = attacked.ann.cluster.client
    put = client.put_rows

    async def put_more(handle, kind, rows, *more):
        values = kind.form is Form.RING
        await put(handle, kind, lambda a, b: rows(a, b) * np.uint64(10) if values else rows(a, b), *more)

    monkeypatch.setattr(client, "put_rows", put_more)


@pytest.mark.parametrize("sizes", ["exact", "noisy", "hidden"])
async def test_no_false_filter_passes_for_many_rows(attacked, monkeypatch, sizes):
    """Of her table, nothing goes into the result but which of its rows count."""
    tenfold(attacked, monkeypatch)
    ages, mine = await tables(attacked, sizes)
    one = await mine.filter(mine["me"])
    for how, other in (("semi", one), ("inner", one[[]])):
        joined = await ages.join(other, on="id", how=how, sizes=sizes)
        told = await joined.describe(["age"], statistics=["mean"])
        assert np.isnan(told["age"]["mean"]), how


@pytest.mark.parametrize(("sizes", "turned"), [("noisy", True), ("hidden", False), ("hidden", True)])
async def test_no_false_bit_passes_for_many_rows(attacked, monkeypatch, sizes, turned):
    """A boolean column of hers that is ten at one key: a condition on it would count that row ten times."""
    tenfold(attacked, monkeypatch)
    ages, mine = await tables(attacked, sizes)
    first, second = (mine, ages) if turned else (ages, mine)
    joined = await first.join(second, on="id", sizes=sizes)
    told = await (await joined.filter(joined["me"])).describe(["age"], statistics=["mean"])
    assert np.isnan(told["age"]["mean"])

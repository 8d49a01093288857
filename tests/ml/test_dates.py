"""Dates and times, compared with pandas: every day of 400 years, ages, differences, clocks."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression
from tercet.ml.dates import MOST_DAYS
from tercet.ml.ingest import encode
from tercet.ml.meanings import FIRST_DAY, LAST_DAY

ROWS = 80
RNG = np.random.default_rng(4)
BORN = np.datetime64("1920-01-01") + RNG.integers(0, 36000, ROWS).astype("m8[D]")
BORN[:4] = np.array(["1960-02-29", "1960-02-28", "1960-03-01", "1999-12-31"], "M8[D]")
SEEN = np.datetime64("2019-06-01", "s") + RNG.integers(0, 10**8, ROWS).astype("m8[s]")
SEEN[:2] = np.array(["2020-02-29T00:00:00", "2020-12-31T23:59:59"], "M8[s]")
PARTS = ("year", "month", "day", "day_of_week")


def put(lake, name="t", **options):
    columns = {"id": np.arange(ROWS), "born": BORN, "seen": SEEN, "n": np.arange(ROWS)}
    return lake.upload(columns, name=name, key="id", owner="o", **options)


def parts(days):
    index = pd.DatetimeIndex(days.astype("M8[s]"))
    return {
        "year": index.year,
        "month": index.month,
        "day": index.day,
        "day_of_week": (days.astype(int) + 3) % 7,
    }


def ages(born, at):
    """Completed years, as people count them."""
    b, a = parts(born), parts(at)
    early = (a["month"] < b["month"]) | ((a["month"] == b["month"]) & (a["day"] < b["day"]))
    return np.asarray(a["year"] - b["year"] - early)


# -- what they hold ------------------------------------------------------------------------------------------


def test_every_day_that_a_date_may_be(plain):
    days = np.arange(FIRST_DAY, LAST_DAY + 1).astype("M8[D]")
    table = plain.upload({"id": np.arange(len(days)), "day": days}, name="all", key="id", owner="o")
    found = table.assign(**{part: getattr(table["day"].dt, part) for part in PARTS}).reveal()
    np.testing.assert_array_equal(found["day"], parts(days)["day"])
    for part, expected in parts(days).items():
        np.testing.assert_array_equal(found[part], expected)


@pytest.mark.cases
def test_parts_and_ages(lake):
    table = put(lake)
    born, seen = table["born"], table["seen"]
    lake.disclosed.clear()
    made = table.assign(
        **{part: getattr(born.dt, part) for part in PARTS},
        hour=seen.dt.hour,
        minute=seen.dt.minute,
        date=seen.dt.date,
        month_seen=seen.dt.month,
        age=born.dt.age("2024-02-28"),
        age_then=born.dt.age(seen.dt.date),
    )
    assert lake.disclosed == []
    found = made.reveal()
    dates = SEEN.astype("M8[D]")
    for part, expected in parts(BORN).items():
        np.testing.assert_array_equal(found[part], expected)
    clock = pd.DatetimeIndex(SEEN)
    np.testing.assert_array_equal(found["hour"], clock.hour)
    np.testing.assert_array_equal(found["minute"], clock.minute)
    np.testing.assert_array_equal(found["month_seen"], clock.month)
    np.testing.assert_array_equal(found["date"], dates)
    np.testing.assert_array_equal(found["age"], ages(BORN, np.full(ROWS, np.datetime64("2024-02-28"))))
    np.testing.assert_array_equal(found["age_then"], ages(BORN, dates))
    np.testing.assert_array_equal(found["born"], BORN)
    np.testing.assert_array_equal(found["seen"], SEEN)
    kinds = {name: made.column(name).schema.kind for name in ("date", "age", "born", "seen")}
    assert kinds == {"date": "date", "age": "integer", "born": "date", "seen": "datetime"}


def test_ages_between_columns_of_dates_without_ranges(plain):
    births = np.array(["1800-01-01", "2200-12-31", "1960-02-29", "1960-02-29", "2000-02-29"], "M8[D]")
    deaths = np.array(["2200-12-31", "1800-01-01", "2023-02-28", "2024-02-29", "1900-02-28"], "M8[D]")
    columns = {"id": np.arange(5), "birth": births, "death": deaths}
    table = plain.upload(columns, name="lives", key="id", owner="o")
    birth, death, shift = table["birth"], table["death"], np.timedelta64(20000, "D")
    found = table.assign(
        age=birth.dt.age(death), days=death - birth, apart=(birth + 20000).dt.age(death - 20000)
    ).reveal()
    np.testing.assert_array_equal(found["age"], ages(births, deaths))
    np.testing.assert_array_equal(found["days"], (deaths - births) / np.timedelta64(1, "D"))
    np.testing.assert_array_equal(found["apart"], ages(births + shift, deaths - shift))
    far = birth + (MOST_DAYS - LAST_DAY)
    np.testing.assert_array_equal(
        table.assign(age=far.dt.age(death)).reveal()["age"],
        ages(births + np.timedelta64(MOST_DAYS - LAST_DAY, "D"), deaths),
    )
    for made in (lambda: (far + 1).dt.age(death), lambda: death.dt.age(far + 1), lambda: (far + 1).dt.year):
        with pytest.raises(SchemaError, match="further away than calendars are computed for; clip it"):
            made()


@pytest.mark.cases
def test_differences_and_comparisons(lake):
    table = put(lake)
    born, seen, n = table["born"], table["seen"], table["n"]
    found = table.assign(
        days=seen.dt.date - born,
        back=born - "1960-02-29",
        until=dt.date(2030, 1, 1) - born,
        later=born + 30,
        moved=born - n,
        onward=n + born,
        young=born >= "1960-02-29",
        old=born < np.datetime64("1960-02-29"),
        same=born == dt.date(1960, 2, 29),
        late=seen > "2021-01-01T12:00:00",
        bounded=born.clip("1950-01-01", "1980-12-31"),
        chosen=born.where(born < "1950-01-01", "1950-01-01"),
        later_time=seen.where(seen > "2021-01-01", "2021-01-01"),
        hours=(seen - "2021-01-01").clip(-3600 * 24, 3600 * 24) / 3600,
        within=(seen - "2021-01-01").clip(0, 3600) == 3600,
    ).reveal()
    day, dates = np.timedelta64(1, "D"), SEEN.astype("M8[D]")
    leap, year = np.datetime64("1960-02-29"), np.datetime64("2021-01-01", "s")
    np.testing.assert_array_equal(found["days"], (dates - BORN) / day)
    np.testing.assert_array_equal(found["back"], (BORN - leap) / day)
    np.testing.assert_array_equal(found["until"], (np.datetime64("2030-01-01") - BORN) / day)
    np.testing.assert_array_equal(found["later"], BORN + 30 * day)
    np.testing.assert_array_equal(found["moved"], BORN - np.arange(ROWS) * day)
    np.testing.assert_array_equal(found["onward"], np.arange(ROWS) * day + BORN)
    np.testing.assert_array_equal(found["young"], leap <= BORN)
    np.testing.assert_array_equal(found["old"], leap > BORN)
    np.testing.assert_array_equal(found["same"], leap == BORN)
    np.testing.assert_array_equal(found["late"], np.datetime64("2021-01-01T12:00:00") < SEEN)
    np.testing.assert_array_equal(
        found["bounded"], np.clip(BORN, np.datetime64("1950-01-01"), np.datetime64("1980-12-31"))
    )
    np.testing.assert_array_equal(found["chosen"], np.minimum(BORN, np.datetime64("1950-01-01")))
    np.testing.assert_array_equal(found["later_time"], np.maximum(SEEN, year))
    seconds = (SEEN - year).astype(float)
    np.testing.assert_allclose(found["hours"], np.clip(seconds, -86400, 86400) / 3600, atol=0.002)
    np.testing.assert_array_equal(found["within"], seconds >= 3600)


@pytest.mark.parametrize("part", ["age", "year", "month", "hour", "weeks"])
def test_models_have_as_many_digits_of_parts_as_of_numbers(plain, part):
    """Parts are integers of few units: stored as such, they would have no digits left beside their spread."""
    rng = np.random.default_rng(8)
    days = np.datetime64("1940-01-01") + rng.integers(0, 20000, 900).astype("m8[D]")
    times = np.datetime64("2020-01-01", "s") + rng.integers(0, 10**8, 900).astype("m8[s]")
    clear = {
        "age": ages(days, np.full(900, np.datetime64("2024-05-01"))),
        "year": parts(days)["year"],
        "month": parts(days)["month"],
        "hour": (times.astype("M8[s]").astype(int) // 3600) % 24,
        "weeks": (np.datetime64("2024-05-01") - days).astype(int) / 7,
    }[part]
    clear = np.asarray(clear, float)
    y = rng.random(900) < 1 / (1 + np.exp(-(clear - clear.mean()) / clear.std()))
    columns = {"id": np.arange(900), "day": days, "time": times, "y": y}
    table = plain.upload(columns, name="t", key="id", owner="o", ranges={"day": ("1930-01-01", "2020-01-01")})
    day, time = table["day"], table["time"]
    made = {
        "age": lambda: day.dt.age("2024-05-01"),
        "year": lambda: day.dt.year,
        "month": lambda: day.dt.month,
        "hour": lambda: time.dt.hour,
        "weeks": lambda: (day - "2024-05-01") / -7,
    }
    found = (
        LogisticRegression(penalty=None)
        .fit(table.assign(x=made[part]()), target="y", features=["x"])
        .summary()
    )
    wanted = sm.Logit(y, sm.add_constant(clear)).fit(disp=0)
    coef, errors = found.values["coef"][::-1], found.values["se"][::-1]  # the intercept's is the last
    assert (np.abs(coef - wanted.params) < 0.01 * wanted.bse).all()
    np.testing.assert_allclose(errors, wanted.bse, rtol=2e-3)


def test_missing_dates(plain):
    born = BORN.copy()
    born[::3] = np.datetime64("NaT")
    table = plain.upload(
        {"id": np.arange(ROWS), "born": born}, name="m", key="id", owner="o", missing="indicator"
    )
    there = ~np.isnat(born)
    made = table.assign(year=table["born"].dt.year)
    assert made.describe(["year"])["year"]["count"] == there.sum()
    found = table.assign(born=table["born"].fillna("2000-01-01")).reveal("born")["born"]
    np.testing.assert_array_equal(found, np.where(there, born, np.datetime64("2000-01-01")))


# -- at upload -----------------------------------------------------------------------------------------------


def column_of(column, **options):
    table = encode({"id": np.arange(len(column)), "d": column}, name="t", key="id", owner="o", **options)
    return table.schema.column("d"), table.values[0]


def test_what_dates_come_from(tmp_path):
    days = [dt.date(2024, 1, 5), dt.date(1900, 1, 1)]
    expected = [(day - dt.date(1970, 1, 1)).days for day in days]
    texts = [day.isoformat() for day in days]
    for column in (days, texts, pd.Series(pd.to_datetime(texts)), np.array(texts, "M8[ns]")):
        schema, codes = column_of(column, types={"d": "date"})
        assert (schema.kind, codes.tolist()) == ("date", expected)
    (tmp_path / "t.csv").write_text("id,d\n0, 2024-01-05\n1,1900-01-01\n")
    table = encode(tmp_path / "t.csv", name="t", key="id", owner="o", types={"d": "date"})
    assert table.values[0].tolist() == expected
    schema, codes = column_of(["2010-01-01T00:00:07", "2010-01-01 00:01"], types={"d": "datetime"})
    assert (schema.kind, codes.tolist()) == ("datetime", [7, 60])
    schema, _ = column_of(days, ranges={"d": ("1900-01-01", dt.date(2024, 12, 31))})
    assert schema.range == ((dt.date(1900, 1, 1) - dt.date(1970, 1, 1)).days, 20088)


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        (
            ["2024-01-05", "5.1.2024"],
            {"types": {"d": "date"}},
            r"row 1 .*'5\.1\.2024' is not written as a date",
        ),
        (
            ["2024-01-05", "2023-02-29"],
            {"types": {"d": "date"}},
            "row 1 .*'2023-02-29' is no date that there is",
        ),
        (["2024-01"], {"types": {"d": "date"}}, "not written as a date"),
        ([dt.datetime(2024, 1, 5, 7)], {"types": {"d": "date"}}, "row 0 .*is not a day; take .dt.date"),
        ([np.datetime64("2024-01-05T00:00:00.5")], {}, "row 0 .*not a whole second"),
        ([dt.datetime(1950, 1, 1)], {}, 'row 0 .*within 34 years of 2010.*types={"d": "date"}'),
        ([dt.date(1700, 1, 1)], {}, "row 0 .*years 1800 to 2200"),
        ([5], {"types": {"d": "date"}}, "declares it as a date, and it holds 5"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": ("2024-02-01", "2024-03-01")}}, "row 0 .*outside of"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": ("x", "2024-03-01")}}, "'x' is no date"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": (0, 1e18)}}, "whole days or seconds, of at most"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": (0, 10**400)}}, "a range is two finite numbers"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": (0.5, 30000)}}, "whole days or seconds"),
        ([dt.date(2024, 1, 5)], {"ranges": {"d": (0, 84371)}}, "beyond the years 1800 to 2200"),
        ([dt.datetime(2024, 1, 5)], {"ranges": {"d": (-(2**31), 0)}}, "whole days or seconds"),
        ([dt.datetime(2024, 1, 5)], {"ranges": {"d": (-(2**30) - 1, 0)}}, "whole days or seconds"),
        (pd.to_datetime(["2024-01-05"]).tz_localize("UTC").to_series(), {}, "times of the zone UTC"),
        ([dt.date(2024, 1, 5)], {"types": {"d": "real"}}, "is a date, not a number"),
        (["2024-01-05"], {}, r"row 0 .*is text, not a number"),
    ],
)
def test_what_is_no_date(column, options, message):
    with pytest.raises(SchemaError, match=message):
        column_of(column, **options)


def test_chunks_have_to_agree():
    chunks = [{"id": [1], "d": [dt.date(2024, 1, 5)]}, {"id": [2], "d": [3]}]
    with pytest.raises(SchemaError, match="some chunks have a date and some a integer"):
        encode(chunks, name="t", key="id", owner="o")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t["born"] * 2, "born is a date, and its codes are not computed on"),
        (lambda t: t["born"] + t["born"], "born is a date, and born is a date"),
        (lambda t: t["n"] - t["born"], "born is a date, and n is integer"),
        (lambda t: t["n"] / 2 + t["born"], "is no whole number of days"),
        (lambda t: t["born"] + 0.5, "0.5 is no whole number of days"),
        (lambda t: t["born"] + "2020-01-01", "'2020-01-01' is no number of days"),
        (lambda t: t["born"] < 3, "3 is no date"),
        (lambda t: t["born"] - t["seen"], "born is a date, and seen is a datetime"),
        (lambda t: t["born"] < t["n"], "born is a date, and n is integer"),
        (lambda t: t["n"] < t["born"], "born is a date, and n is integer"),
        (lambda t: t["seen"] == t["n"], "seen is a datetime, and n is integer"),
        (lambda t: t["born"].clip(t["n"]), "born is a date, and n is integer"),
        (lambda t: t["born"].where(t["n"] > 3, t["n"]), "born is a date, and n is integer"),
        (lambda t: t["born"].dt.age(t["n"]), "born is a date, and n is integer"),
        (lambda t: t["n"].age("2020-01-01"), "n: '2020-01-01' is neither a number nor"),
        (lambda t: t["n"].age(t["n"]), "n is integer, and ages are those of dates"),
        (lambda t: t["n"].calendar(0), "n is integer, not a date"),
        (lambda t: t["born"].cut([0, 1]), "born is a date, and bands are of numbers"),
        (lambda t: t["born"].one_hot(["2020-01-01"]), "born is a date, and born.one_hot takes labels"),
        (lambda t: t["born"] > "soon", "'soon' is no date"),
        (lambda t: t["seen"] > "soon", "'soon' is no time"),
        (lambda t: t["n"].dt, "n is integer, not a date"),
        (lambda t: t["born"].dt.hour, "born is a date and has no 'hour'"),
        (lambda t: t["seen"].dt.age("2020-01-01"), "its codes are not computed on"),
        (lambda t: t["seen"] + 2**30, "further away than there is room for"),
        (lambda t: t.describe(["born"]), "column 'born' is a date, and not a column of numbers"),
    ],
)
def test_what_dates_are_not(plain, make, message):
    with pytest.raises((SchemaError, PlanError), match=message):
        make(put(plain))


@pytest.mark.parametrize(
    "day",
    ["2019-12-31", dt.date(2019, 12, 31), pd.Timestamp("2019-12-31"), np.datetime64("2019-12-31T00:00")],
)
def test_a_day_may_be_written_as_its_midnight(plain, day):
    table = put(plain, name="midnight")
    found = table.assign(before=table["born"] < day, years=table["born"].dt.age(day)).reveal()
    np.testing.assert_array_equal(found["before"].astype(bool), np.datetime64("2019-12-31") > BORN)
    np.testing.assert_array_equal(found["years"], ages(BORN, np.full(ROWS, np.datetime64("2019-12-31"))))


def test_a_time_is_no_day(plain):
    table = put(plain, name="noon")
    for noon in (
        pd.Timestamp("2019-12-31T12:00"),
        "2019-12-31T12:00:00",
        pd.Timestamp("2019-12-31", tz="UTC"),
    ):
        with pytest.raises(SchemaError, match="is no date"):
            table["born"] < noon  # noqa: B015 - the comparison is refused

"""With a `random_state`, the same rows fall into the same parts, under any protocol, in any order and run."""

import hashlib

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import GridSearch, LogisticRegression, cross_validate
from tercet.ml.row_keys import hash_keys
from tercet.ml.splitting import folds
from tercet.protocols import circuits
from tercet.protocols.domains import BITS
from tercet.protocols.plain import Plain
from tercet.testing.lockstep import lockstep, parties, reconstruct, share

IDS = np.arange(100, 160)
TESTED = [101, 103, 107, 110, 123, 127, 129, 130, 136, 137, 143, 146, 149, 154, 158]
"""The test rows of these ids for random_state=7, for good."""


def numbers(ids, random_state):
    """What rows are dealt by: pseudonyms of their keys under a public key, in the clear."""
    session = parties(Plain)
    seed = hashlib.blake2b(str(random_state).encode(), digest_size=16, person=b"tercet-split").digest()
    key = share(session, np.frombuffer(seed, np.uint64), domain=BITS)
    message = share(session, hash_keys({"id": ids}, table="t"), domain=BITS)
    bound = [party.bind("prf") for party in session]
    run = lockstep([circuits.ascon_prf_short(p, *s) for p, *s in zip(bound, key, message, strict=True)])
    return reconstruct(session, run.results)[0]


def upload(lake, ids, name="t", **options):
    columns = {"id": ids, "x": ids, "y": ids % 3 == 0}
    return lake.upload(columns, name=name, key="id", owner="owner", **options)


def ids_of(table):
    return np.sort(table.reveal("x")["x"]).tolist()


@pytest.mark.cases
@pytest.mark.parametrize("protocol", ["plain", "replicated", "shamir", "rep4"])
def test_the_same_rows_everywhere(protocol):
    order = np.random.default_rng().permutation(IDS)
    with tercet.local(protocol=protocol) as lake:
        table = upload(lake, order)
        train, test = table.split(test_size=0.25, random_state=7)
        assert ids_of(test) == TESTED
        assert ids_of(train) == sorted(set(IDS) - set(TESTED))
        np.testing.assert_array_equal(train.reveal()["y"], train.reveal()["x"] % 3 == 0)
        stratified = table.split(test_size=0.25, stratify="y", random_state=7)[1].reveal()
        assert (len(stratified["y"]), stratified["y"].sum()) == (15, 5)


def test_test_rows_have_the_least_numbers(plain):
    table = upload(plain, IDS)
    for random_state in (0, 1, 2**32 - 1):
        _, test = table.split(test_size=0.3, random_state=random_state)
        order = IDS[np.argsort(numbers(IDS, random_state))]
        assert ids_of(test) == np.sort(order[:18]).tolist()
        assert set(ids_of(table.split(test_size=0.1, random_state=random_state)[1])) <= set(ids_of(test))


def test_folds_are_cut_from_the_same_order(plain):
    table = upload(plain, IDS)
    ranks = IDS[np.argsort(numbers(IDS, 3))]
    made = plain.perform(folds(table, 7, None, 3), "folds")
    for (train, test), expected in zip(made, np.array_split(ranks, 7), strict=True):
        assert ids_of(test) == np.sort(expected).tolist()
        assert ids_of(train) == sorted(set(IDS) - set(expected))
    for (_, test), (_, again) in zip(
        plain.perform(folds(table, 4, "y", 3), "folds"),
        plain.perform(folds(table, 4, "y", 3), "folds"),
        strict=True,
    ):
        assert ids_of(test) == ids_of(again)
        assert abs(test.reveal()["y"].sum() - 5) < 1.5


def test_parts_follow_keys_through_joins_and_filters(plain):
    mine, other = (
        upload(plain, IDS),
        plain.upload({"id": IDS[5:], "z": IDS[5:]}, name="u", key="id", owner="o"),
    )
    joined = mine.join(other, on="id")
    _, test = joined.filter(joined["x"] > 110).split(test_size=0.3, random_state=7)
    ranked = IDS[5:][np.argsort(numbers(IDS[5:], 7))]
    assert ids_of(test) == np.sort(ranked[:17]).tolist()
    assert test.describe(["x"], statistics=["mean"])["x"]["count"] == sum(ranked[:17] > 110)


def test_rows_that_share_a_key_are_parted_by_their_order_at_most_at_the_cut(plain):
    ids, rows = np.repeat(IDS[:20], 3), np.arange(60)
    ranked = IDS[:20][np.argsort(numbers(IDS[:20], 7))]
    for order in (rows, rows[::-1]):
        columns = {"id": ids[order], "x": rows[order]}
        table = plain.upload(columns, name="repeated", key="id", owner="owner", unique=False)
        test = ids_of(table.split(test_size=16 / 60, random_state=7)[1])
        cut = next(row for row in order if ids[row] == ranked[5])
        assert test == sorted([*rows[np.isin(ids, ranked[:5])], cut])


def test_nobody_knows_the_order_within_a_part(plain):
    """Of 30 rows in the order of their numbers, or of their classes, one of 30! orders would be told."""
    table = upload(plain, IDS)
    for stratify in (None, "y"):
        first, second = (
            table.split(test_size=0.5, stratify=stratify, random_state=1)[1].reveal("x")["x"]
            for _ in range(2)
        )
        assert sorted(first) == sorted(second)
        assert list(first) != list(second)


def test_what_a_repeatable_split_discloses(lake, put):
    table = put(np.arange(10)[:, None], np.arange(10) < 3)
    for stratify in (None, "y"):
        lake.disclosed.clear()
        table.split(stratify=stratify, random_state=0)
        found = [(item.what, item.to, item.size) for item in lake.disclosed]
        assert found == [("comparisons of shuffled rows, a random order", "the nodes", "10")]


def test_scores_are_the_same_again(plain, put_plain):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 1))
    table = put_plain(X, (X[:, 0] + rng.normal(size=90)) > 0)
    model = LogisticRegression(max_iter=6)
    first, second = (cross_validate(model, table, "y", cv=3, random_state=1)["roc_auc"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first != cross_validate(model, table, "y", cv=3, random_state=2)["roc_auc"]).any()
    searches = [GridSearch(model, C=[0.1, 1.0], cv=3, random_state=1).fit(table, "y") for _ in range(2)]
    np.testing.assert_array_equal(searches[0].mean_scores_, searches[1].mean_scores_)


@pytest.mark.parametrize("wrong", [-1, 2**32, 1.5, True, "seed"])
def test_a_random_state_is_a_whole_number(plain, wrong):
    with pytest.raises(PlanError, match=r"random_state.* a whole number between 0 and 4.29497e\+09"):
        upload(plain, IDS).split(random_state=wrong)


def test_two_rows_can_be_split(plain):
    train, test = upload(plain, IDS[:2]).split(random_state=0, stratify="y")
    assert (len(train), len(test)) == (1, 1)
    with pytest.raises(SchemaError, match="at least 2"):
        upload(plain, IDS[:1]).split(random_state=0)

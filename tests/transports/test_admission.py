"""Who may shake hands: whatever strangers do, no address and not all together have more than their limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.transports.admission import MOST_ADDRESSES, Admission, Limits, TokenBucket, address_of

STEPS = st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=80)


@given(STEPS, st.integers(1, 6), st.integers(1, 4))
def test_limits_hold_and_the_newest_goes_on(steps, at_once, of_address):
    admission, under_way, calls, gone = Admission(Limits(at_once, of_address)), [], [], 0

    def counted():
        calls.append(None)

    for address, ends in steps:
        if ends and under_way:
            admission.end(under_way.pop(0))
            continue
        begun = admission.begin(address, counted)
        under_way.append(begun)
        alive = {one for one in under_way if any(one in mine for mine in admission._under_way.values())}
        gone += len(under_way) - len(alive)
        assert calls == [None] * gone
        assert begun in alive
        assert admission.count == len(alive) <= at_once
        assert all(sum(one.address == name for one in alive) <= of_address for name in "abcde")
        assert [one for one in under_way if one not in alive][1:] == [], "one makes room for one"
        under_way = [one for one in under_way if one in alive]
    for one in under_way:
        admission.end(one)
        admission.end(one)  # also twice
    assert (admission.count, admission._under_way) == (0, {})


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.floats(0.5, 50), st.integers(1, 20))
def test_a_bucket_lets_no_more_pass_than_it_says(pauses, rate, burst):
    bucket, now, passed = TokenBucket(rate, burst, at=0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.has(now)
        assert passed <= burst + rate * now + 1e-6


def test_whoever_spends_too_much_waits_in_a_row():
    bucket = TokenBucket(10.0, 2.0, at=0.0)
    assert [round(bucket.spend(0.0), 6) for _ in range(5)] == [0, 0, 0.1, 0.2, 0.3]
    assert bucket.spend(10.0) == 0


def test_addresses_are_forgotten():
    admission = Admission(Limits(a_second=1, burst=1))
    assert admission.allows("first", 0.0)
    assert not admission.allows("first", 0.0)
    for number in range(2 * MOST_ADDRESSES):
        assert admission.allows(str(number), 0.0)
    assert len(admission._rates) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("where", "address"),
    [
        ("192.0.2.7:7001", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]:1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
    ],
)
def test_what_a_stranger_picks_at_will_does_not_count(where, address):
    assert address_of(where) == address

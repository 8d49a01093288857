"""Whatever comes from outside is decoded, or refused with a sentence: never a crash, never much memory.

Here hypothesis makes the chance by which valid inputs are changed, a few hundred for each decoder, and
shrinks what fails. `make fuzz` runs a campaign of ten million.
"""

from __future__ import annotations

import contextlib
import random

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.errors import TransportError
from tercet.transports.wire import unpack_message
from tests.fuzz.campaign import Failed, campaign
from tests.fuzz.mutations import Corpus
from tests.fuzz.targets import Target, all_targets

TARGETS = all_targets()
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of a certificate that was changed


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_are_decoded(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].decode(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_decoded_or_refused(name):
    target = TARGETS[name]
    corpus = Corpus(target.seeds, trees=target.tree)

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(rng=st.randoms(use_true_random=False))
    def decode(rng):
        with contextlib.suppress(target.refuses):
            target.decode(corpus.changed(rng))

    decode()


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_campaign(name):
    tally = campaign(TARGETS[name], 500, random.Random(name))
    assert tally.inputs == tally.accepted + tally.refused == 500
    assert tally.refused > 50, "next to nothing was refused: the changes change nothing"
    assert tally.accepted or name in ("entries", "approvals", "logs"), "everything was refused"
    assert len(tally.places) > 1


# -- a campaign finds what it is there to find ---------------------------------------------------------------


def target_of(decode):
    return Target(decode, (msgpack.packb({"a": [1, 2, 3]}),), refuses=(TransportError,))


def crash(data):
    tree = unpack_message(data)
    if isinstance(tree, dict) and isinstance(tree.get("a"), list) and len(tree["a"]) > 3:
        raise RuntimeError("a crash")


def allocate(data):
    bytearray(1 << 26)


def run_out_of_memory(data):
    raise TransportError("no room") from MemoryError()


@pytest.mark.parametrize(
    ("decode", "why"),
    [(crash, "RuntimeError: a crash"), (allocate, "bytes of memory"), (run_out_of_memory, "no memory")],
)
def test_a_campaign_finds_defects(decode, why):
    with pytest.raises(Failed, match=why):
        campaign(target_of(decode), 2000, random.Random(1))

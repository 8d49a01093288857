"""While plans are made, garbage is collected less often; afterwards as before, whoever else makes some."""

from __future__ import annotations

import gc
import threading

import pytest

from tercet.client.collecting import SELDOM, collecting_seldom


@pytest.fixture(params=[(700, 10, 10), (SELDOM + 1, 5, 5), (0, 10, 10)])
def before(request):
    """What the process has set: often, more seldom still, never."""
    found = gc.get_threshold()
    gc.set_threshold(*request.param)
    yield request.param
    gc.set_threshold(*found)


def test_it_is_as_before_afterwards(before):
    with collecting_seldom():
        often, *rest = gc.get_threshold()
        assert often == (SELDOM if 0 < before[0] < SELDOM else before[0])
        assert tuple(rest) == before[1:]
    assert gc.get_threshold() == before
    with pytest.raises(ZeroDivisionError), collecting_seldom():
        1 / 0  # noqa: B018
    assert gc.get_threshold() == before


def test_threads_that_overlap_leave_it_as_the_first_has_found_it(before):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with collecting_seldom():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collecting_seldom():
        thread.start()
        assert inside.wait(10)
    assert gc.get_threshold()[0] == (SELDOM if 0 < before[0] < SELDOM else before[0])
    leave.set()
    thread.join(10)
    assert gc.get_threshold() == before

"""Lakes that the tests of a module share: starting one takes a while, and what is in it does not matter."""

import itertools

import numpy as np
import pytest

import tercet
from tercet.plans import Form, Type
from tercet.protocols.domains import encode

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["plain", "replicated"])
def lake(request):
    """A lake of each protocol."""
    with tercet.local(protocol=request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain():
    """The clear reference."""
    with tercet.local(protocol="plain") as opened:
        yield opened


@pytest.fixture(scope="module")
def compute(lake):
    """Run a function of secret values: `compute(function, scale, x, y, ...)` gives what it returns,
    decoded."""

    def run(function, scale, *arrays):
        builder = lake.builder("compute")
        values = []
        for array in arrays:
            numbers = np.asarray(array, dtype=np.float64)
            words = encode(numbers, scale)
            handle = f"number {next(_numbers)}"
            limit = float(np.abs(words.view(np.int64)).max(initial=1))
            kind = Type(Form.RING, numbers.shape, scale, limit)
            lake._wait(lake.cluster.client.put, handle, kind, words)
            values.append(builder.input(handle, kind))
        found = function(*values)
        several = isinstance(found, tuple)
        for place, value in enumerate(found if several else (found,)):
            value.reveal(str(place), to="analyst")
        revealed = lake.run(builder.plan()).revealed
        results = [revealed[str(place)] for place in range(len(revealed))]
        return results if several else results[0]

    return run


def _upload_to(lake):
    def upload(features, outcomes=None, **options):
        features = np.asarray(features)
        columns = {f"x{place}": features[:, place] for place in range(features.shape[1])}
        if outcomes is not None:
            columns["y"] = np.asarray(outcomes)
        columns["id"] = np.arange(len(features))
        return lake.upload(columns, name=f"table{next(_numbers)}", key="id", owner="owner", **options)

    return upload


@pytest.fixture(scope="module")
def put(lake):
    """Upload columns under keys 0, 1, 2, ...: `put(X, y)` has columns x0, x1, ... and the target y."""
    return _upload_to(lake)


@pytest.fixture(scope="module")
def put_plain(plain):
    """The same into the clear reference, once, whatever protocols there are."""
    return _upload_to(plain)

"""The demo's plan means the same under every protocol: join, both solvers, predictions, all metrics."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.demo.data import KEY, TARGET, owners
from tercet.ml import LogisticRegression, StandardScaler

pytestmark = pytest.mark.early
DIGITS = 0.5e-3


def results(protocol, parties=None):
    """What an analyst gets: row counts, coefficients, predictions, metrics."""
    tables = owners()
    with tercet.local(protocol=protocol, parties=parties) as lake:
        hospital = lake.upload(tables.hospital, name="hospital", key=KEY, owner="hospital")
        insurer = lake.upload(tables.insurer, name="insurer", key=KEY, owner="insurer")
        joined = hospital.join(insurer, on=KEY)
        scaled = StandardScaler().fit_transform(joined)
        newton = LogisticRegression(C=1.0).fit(scaled, target=TARGET)
        descent = LogisticRegression(C=1.0, solver="gd", max_iter=8).fit(scaled, target=TARGET)
        found = {"rows": joined.rows}
        for name, model in (("newton", newton), ("descent", descent)):
            revealed = model.reveal()
            found[name] = np.append(revealed.coef_[0], revealed.intercept_[0])
        found["predicted"] = np.sort(newton.predict_proba(scaled).reveal())
        found["metrics"] = newton.evaluate(scaled).reveal().as_dict()
    return found


@pytest.fixture(scope="module")
def clear():
    return results("plain")


@pytest.mark.cases(
    "replicated-3", "shamir-5"
)  # `test_studies.py` has the operations of Shamir's scheme for 3
@pytest.mark.parametrize(
    ("protocol", "parties"), [("replicated", 3), ("shamir", 3), ("shamir", 5), ("rep4", 4)]
)
def test_every_protocol_gives_the_same_results(clear, protocol, parties):
    found = results(protocol, parties)
    assert found["rows"] == clear["rows"]
    for name in ("newton", "descent", "predicted"):
        np.testing.assert_allclose(found[name], clear[name], atol=DIGITS)
    assert found["metrics"].keys() == clear["metrics"].keys()
    for name, value in clear["metrics"].items():
        np.testing.assert_allclose(found["metrics"][name], value, atol=DIGITS, err_msg=name)


def test_seven_parties_fit_as_one_does():
    """Four dealers' angles are added in every sigmoid, and coefficients agree all the same."""
    random = np.random.default_rng(1)
    x = random.standard_normal((2, 80))
    columns = {
        "id": np.arange(80),
        "a": x[0],
        "b": x[1],
        "y": (x[0] + random.standard_normal(80) > 0).astype(int),
    }
    found = []
    for protocol, parties in (("plain", None), ("shamir", 7)):
        with tercet.local(protocol=protocol, parties=parties, timeout_s=60) as lake:
            table = lake.upload(columns, name="table", key="id", owner="owner")
            told = LogisticRegression(C=1.0, max_iter=5).fit(table, target="y").reveal()
            found.append(np.append(told.coef_[0], told.intercept_[0]))
    np.testing.assert_allclose(found[1], found[0], atol=DIGITS)

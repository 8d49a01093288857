"""The examples in README and tutorial run as they stand."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet.ml.computations import COMPUTATIONS
from tercet.ml.declarations import DECLARED

pytestmark = pytest.mark.early
IN_ONE_PROCESS = {"processes": False, "latency_ms": 0}
HOW = {
    "as it stands": {},
    "in one process": IN_ONE_PROCESS,
    "in the clear": {"protocol": "plain", "parties": 1, **IN_ONE_PROCESS},
}
ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(\B<)?[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")


@pytest.fixture(autouse=True)
def as_installed():
    """Forget what computations a page has declared: other tests look at all that there are."""
    before = COMPUTATIONS.keys() | DECLARED.keys()
    yield
    for registry in (COMPUTATIONS, DECLARED):
        for name in registry.keys() - before:
            del registry[name]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every code block of a page."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def gist(text: str) -> list[str]:
    """Lines of output without what changes from run to run: numbers and spacing."""
    return [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in text.strip().splitlines()]


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """A hospital's and an insurer's table, with 600 of 700 patients in common."""
    generator = np.random.default_rng(11)
    age, marker, visits = (
        generator.normal(58, 12, 700),
        generator.gamma(2.0, 1.5, 700),
        generator.poisson(4, 700),
    )
    odds = 0.06 * (age - 58) + 0.7 * (marker - 3) + 0.25 * (visits - 4) - 0.4
    malignant = (generator.random(700) < 1 / (1 + np.exp(-odds))).astype(int)
    key = [f"P-{number:06d}" for number in generator.permutation(10**6)[:700]]
    everyone = pd.DataFrame(
        {"policy_number": key, "age": age, "marker": marker, "visits": visits, "malignant": malignant}
    )
    hospital = everyone[["policy_number", "age", "marker", "malignant"]].iloc[:650]
    insurer = everyone[["policy_number", "visits"]].iloc[50:].sample(frac=1.0, random_state=3)
    return hospital.reset_index(drop=True), insurer


def test_the_ten_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    example = next(text for language, text in blocks("README.md") if language == "python")
    monkeypatch.chdir(tmp_path)
    hospital, insurer = frames()
    insurer.to_csv("insurer.csv", index=False)
    names = {"hospital_df": hospital}
    exec(compile(example, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    for wanted in ("accuracy", "roc", "[", "the number of rows that match"):
        assert wanted in printed.lower()
    assert len(names["patients"]) == 600


@pytest.mark.cases(
    "in one process-tutorial",
    "as it stands-preparation",
    "in the clear-three-owners",
    "in one process-two-hospitals",
    "in one process-plans",
)
@pytest.mark.parametrize("name", ["tutorial", "preparation", "three-owners", "two-hospitals", "plans"])
@pytest.mark.parametrize("how", HOW)
def test_a_page_runs_and_prints_what_it_says(name, how, tmp_path, monkeypatch):
    """In one process the same comes out in half the time, in the clear in a third."""
    page = f"docs/{name}.md"
    monkeypatch.chdir(tmp_path)
    local = tercet.local
    monkeypatch.setattr(tercet, "local", lambda **options: local(**{**options, **HOW[how]}))
    names: dict[str, object] = {}
    printed = ""
    for language, text in blocks(page):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, page, "exec"), names)
            printed = out.getvalue()
        elif language == "text":
            assert gist(printed) == gist(text), f"{page}: renew the output\n{printed}"

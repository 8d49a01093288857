"""The page of costs says what the protocols declare and do."""

from __future__ import annotations

from pathlib import Path

from tercet.testing.costs import costs_page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "costs.md"


def test_the_page_of_costs_is_current():
    assert PAGE.read_text(encoding="utf-8") == costs_page(), (
        "renew it: python -m tercet.testing.costs > docs/reference/costs.md"
    )

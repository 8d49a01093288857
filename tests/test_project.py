"""What the project says of itself: one version, and one list of the Pythons that it supports."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import tercet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUPPORTED = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
WRITTEN = re.compile(r"""__version__\s*(:\s*\w+\s*)?=\s*["']|^version\s*=\s*["']""", re.MULTILINE)
"""Where a version is written as text."""


def test_the_version_is_what_is_installed():
    assert tercet.__version__ == metadata.version("tercet") == PROJECT["version"]


@pytest.mark.parametrize("folder", ["tercet", "docs", "perf", ".github"])
def test_the_version_is_written_nowhere_else(folder):
    kinds = {".py", ".toml", ".cfg", ".yml", ".json"}
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    for path in [*files, *ROOT.glob("*.toml"), *ROOT.glob("*.cfg"), *ROOT.glob("*.yml")]:
        if path.name != "pyproject.toml":
            assert not WRITTEN.search(path.read_text(encoding="utf-8")), f"{path}: pyproject.toml says that"


def test_a_version_that_is_written_is_found():
    for text in ('__version__ = "1.0"', "__version__: str = '1.0'", 'name = "x"\nversion = "1.0"'):
        assert WRITTEN.search(text)
    assert not WRITTEN.search('__version__ = metadata.version("tercet")')


def test_the_change_log_has_no_release_beyond_the_version():
    releases = re.findall(
        r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert releases[:1] in ([], [PROJECT["version"]])


def test_supported_pythons_are_those_that_are_required():
    assert SUPPORTED[0] == PROJECT["requires-python"].removeprefix(">=")
    minors = [int(one.removeprefix("3.")) for one in SUPPORTED]
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_every_supported_python_is_tested():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    assert re.findall(r'"([^"]+)"', matrix[1]) == SUPPORTED

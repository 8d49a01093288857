"""Pages of the site: none is missing, links hold on code hosts too, the API reference has what is public."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any, TypeVar

import griffe
import pytest

from docs.tools import pages, reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PUBLIC = (
    "tercet",
    "tercet.plans",
    "tercet.client.lake",
    "tercet.ml",
    "tercet.protocols.base",
    "tercet.comparison",
    "tercet.testing",
    "tercet.transports",
)
"""Modules whose `__all__` is the public API."""

KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional or keyword",
    inspect.Parameter.KEYWORD_ONLY: "keyword-only",
}
"""What griffe calls the kinds of parameters that attrs makes."""

DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
HIDDEN = re.compile(r"^::: (\S+)\n(?: +.*\n)*? +filters: \[\"!\^_\", \"!\^(.*)\$\"\]$", re.MULTILINE)
"""A name that a page asks for, and the pattern of members that it hides."""

LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def written() -> list[Path]:
    """All pages of the repository, and what its code host shows."""
    return [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / ".github").rglob("*.md")]


def broken(page: Path, root: Path) -> list[str]:
    """Links of a page to files or sections that do not exist, or that leave the folder `root`."""
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, section = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.is_relative_to(root.resolve()) and target.is_file()
        if not inside or (section and section not in sections(target)):
            found.append(link)
    return found


def sections(page: Path) -> set[str]:
    """Sections of a page, as code hosts name them in links."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def documented() -> dict[str, Any]:
    """What the API reference has, by the name under which a page asks for it."""
    names = [
        name for page in DOCS.rglob("*.md") for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))
    ]
    assert len(names) == len(set(names)), "a name is on two pages"
    return {name: find(name) for name in names}


def find(name: str) -> Any:
    """The module, or what is in a module, that is called so."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(module), last)


@pytest.fixture(scope="module")
def source() -> griffe.Module:
    """Tercet as the reference reads it: from its source."""
    return griffe.load("tercet", search_paths=[ROOT], extensions=griffe.load_extensions(reference.Reference))


def test_every_page_is_in_the_navigation_once():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = settings.partition("\nnav:\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", navigation, re.MULTILINE)
    here = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    here |= {target for target in pages.AT_THE_ROOT.values() if target.endswith(".md")}
    assert sorted(listed) == sorted(here)


def test_every_page_at_the_root_is_taken_in():
    taken_in = {name for name in pages.AT_THE_ROOT if name.endswith(".md")}
    assert {path.name for path in ROOT.glob("*.md")} == taken_in


@pytest.mark.parametrize("page", written(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_hold_in_the_repository(page):
    assert broken(page, ROOT) == []


def test_links_hold_in_the_site(tmp_path):
    pages.gather(tmp_path / "site")
    found = {path.name: broken(path, tmp_path / "site") for path in (tmp_path / "site").rglob("*.md")}
    assert "index.md" in found
    assert {name: links for name, links in found.items() if links} == {}


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n[a](#a-title-here) [b](#b) [c](page.md#c) [d](gone.md)\n```\n[e](e)\n```\n"
    )
    assert broken(page, tmp_path) == ["#b", "page.md#c", "gone.md"]


@pytest.mark.parametrize(
    ("place", "link", "there"),
    [
        ("README.md", "docs/tutorial.md#join", "tutorial.md#join"),
        ("README.md", "CONTRIBUTING.md", "contributing.md"),
        ("README.md", "docs/benchmarks/train.svg", "benchmarks/train.svg"),
        ("README.md", "https://example.org/docs/x.md", "https://example.org/docs/x.md"),
        ("README.md", "#ten-lines", "#ten-lines"),
        ("docs/decisions/0001.md", "../../SECURITY.md", "../security.md"),
        ("docs/decisions/0001.md", "../tutorial.md", "../tutorial.md"),
        ("docs/decisions/0001.md", "../../tercet/client/lake.py", "../../tercet/client/lake.py"),
    ],
)
def test_links_move_with_their_page(place, link, there):
    target = pages.AT_THE_ROOT.get(place) or place.removeprefix("docs/")
    assert pages.moved(f"As [a page]({link}) says", place, target) == f"As [a page]({there}) says"


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_in_the_reference(module):
    there = [*documented().values(), *vars(importlib.import_module("tercet.errors")).values()]
    for name in importlib.import_module(module).__all__:
        public = getattr(importlib.import_module(module), name)
        if not inspect.ismodule(public) and not isinstance(public, TypeVar):
            assert any(public is one for one in there), f"no page has {module}.{name}"


def test_what_pages_hide_is_there():
    texts = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    found = [each for text in texts for each in HIDDEN.findall(text)]
    assert len(found) == sum(text.count("filters: [") for text in texts)
    for name, pattern in found:
        where = find(name)
        within = [one for one in vars(where).values() if inspect.isclass(one)]
        members = {member for one in [where, *within] for member in dir(one)}
        for hidden in pattern.strip("()").split("|"):
            assert any(re.fullmatch(hidden, one) for one in members), f"{name} has no {hidden}"


def test_what_docstrings_refer_to_is_in_the_reference():
    there = list(documented().values())
    told = [one for one in there if inspect.isclass(one) or inspect.isfunction(one)]
    told += [member for one in there if inspect.isclass(one) for member in vars(one).values()]
    texts = [one.__doc__ for one in told if isinstance(getattr(one, "__doc__", None), str)]
    names = {name for text in texts for name in re.findall(r"`(tercet\.[\w.]+)", text)}
    assert "tercet.ml.join.join" in names
    groups = {"tercet.protocols", "tercet.transports"}
    missing = {name for name in names - groups if not any(find(name) is one for one in there)}
    assert missing == set()


def test_constructors_are_those_that_attrs_writes(source):
    classes = {
        one for one in documented().values() if inspect.isclass(one) and "__attrs_attrs__" in vars(one)
    }
    assert len(classes) > 20
    for cls in classes:
        path = f"{cls.__module__}.{cls.__qualname__}".removeprefix("tercet.")
        read = [(one.name, one.kind.value, one.default is not None) for one in source[path].parameters]
        made = inspect.signature(cls.__init__).parameters.values()
        assert read == [(one.name, KINDS[one.kind], one.default is not one.empty) for one in made], cls


@pytest.mark.parametrize(
    ("where", "text", "path"),
    [
        ("ml.linear_model.LogisticRegression", "`fit`", "tercet.ml.linear_model.LogisticRegression.fit"),
        ("ml.linear_model.LogisticRegression", "`get_params()`", "tercet.ml.estimator.Estimator.get_params"),
        ("client.lake.AsyncLake.upload", "`Lake.upload`", "tercet.client.lake.Lake.upload"),
        ("client.lake.Lake.table", "SchemaError", "tercet.errors.SchemaError"),
        ("client.lake.Lake.table", "`tercet.local`", "tercet.client.lake.local"),
        ("ml.table.Table", "`AsyncLake`", "tercet.client.lake.AsyncLake"),
    ],
)
def test_names_in_docstrings_are_links(source, where, text, path):
    link = f'<autoref identifier="{path}" optional>{text}</autoref>'
    assert reference.linked(f"See {text}.", source[where], source) == f"See {link}."


@pytest.mark.parametrize(
    "text", ["`C`", "`PlanError(x)`", "`columns`", "`no_such_name`", "`Lake.`", "IOError"]
)
def test_what_is_no_name_of_something_public_is_no_link(source, text):
    where = source["ml.linear_model.LogisticRegression"]
    assert reference.linked(f"See {text}.", where, source) == f"See {text}."


def test_parameters_are_no_links(source):
    assert reference.linked("`table`", source["client.lake.Lake"], source) != "`table`"
    assert reference.linked("`table`", source["ml.linear_model.LogisticRegression.fit"], source) == "`table`"

"""Results of comparisons: tables that fit, Markdown, LaTeX, files that are read or refused, ratios."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tercet.cli import app
from tercet.comparison import Comparison, Measurement, Network, Origin, Run, Spread, load, network
from tercet.comparison.printing import escaped
from tercet.errors import PlanError

HERE = Origin(tercet="0.2", python="3.12.1", system="Linux 6.1", processor="fast", cores=8, date="2030-01-02")


def run(**figures):
    known = {"plans": 1, "rounds": 8, "bytes_sent": (1_000_000, 2_000_000, 500_000), "seconds": 0.5}
    return Run(**{**known, "predicted_seconds": 0.4, "peak_mb": 110.0, "error": 1.4e-6, **figures})


def one(*runs, **setting):
    known = {"plan": "fit", "protocol": "replicated", "parties": 3, "corruptions": 1, "malicious": False}
    known |= {"network": network("lan"), "rows": 1000}
    return Measurement(**{**known, **setting}, runs=runs or (run(),))


CLEAR = one(
    run(rounds=0, bytes_sent=(0,), seconds=0.05, predicted_seconds=None, error=0.0),
    protocol="plain", parties=1, corruptions=0,
)  # fmt: skip
FOUR = one(
    run(rounds=9, seconds=1.0), run(rounds=11, seconds=2.0), run(rounds=10, seconds=6.0),
    protocol="rep4", parties=4, malicious=True,
)  # fmt: skip
FOUND = Comparison(HERE, (one(), FOUR, CLEAR))

amounts = st.floats(0, 1e12)
counts = st.integers(0, 10**12)
runs = st.builds(
    Run,
    plans=counts,
    rounds=counts,
    bytes_sent=st.lists(counts, min_size=1, max_size=4).map(tuple),
    seconds=amounts,
    predicted_seconds=st.none() | amounts,
    peak_mb=st.none() | amounts,
    error=st.none() | amounts,
)
measurements = st.builds(
    Measurement,
    plan=st.sampled_from(["fit", "a_plan_of_mine.py:fit_of_a_long_name"]),
    protocol=st.sampled_from(["replicated", "plain", "a_plug_in"]),
    parties=st.integers(1, 64),
    corruptions=st.integers(0, 3),
    malicious=st.booleans(),
    network=st.sampled_from([network("lan"), network("10ms/50mbit/2ms")]),
    rows=st.sampled_from([10, 10**9]),
    runs=st.lists(runs, min_size=1, max_size=3).map(tuple),
)
comparisons = st.builds(
    Comparison,
    st.just(HERE),
    st.lists(measurements, min_size=1, max_size=5, unique_by=lambda one: one.key).map(tuple),
)


# -- tables --------------------------------------------------------------------------------------------------


def test_the_table_of_a_terminal():
    text = Comparison(HERE, (one(), CLEAR)).table(80)
    assert max(map(len, text.splitlines())) <= 80
    head, body = text.split("\nfit, lan, 1,000 rows\n")
    assert "Tercet 0.2, Python 3.12.1; fast, 8 cores, Linux 6.1; 2030-01-02." in head.replace("\n", " ")
    assert re.search(r"^replicated:3 +1 of 3, semi-honest$", head, re.MULTILINE)
    assert [line.split() for line in body.splitlines()] == [
        ["replicated:3", "8", "1.00", "2", "1.00", "0.5", "1.00", "0.4", "110", "1.4e-06"],
        ["plain", "0", "0.00", "0", "0.00", "0.05", "0.10", "-", "110", "0"],
    ]


def test_medians_and_ranges():
    assert FOUR.spread("seconds") == Spread(2.0, 1.0, 6.0)
    assert (FOUR.seconds, FOUR.rounds, FOUR.bytes_most) == (2.0, 10, 2_000_000)
    assert FOUR.predicted_over_measured == 0.2
    assert not FOUR.predicted_well
    assert not CLEAR.predicted_well
    (line,) = [line for line in FOUND.table().splitlines() if "rep4" in line]
    for cell in ("1 of 4, malicious", " 10 (9–11) ", " 2 (1–6) ", " 1.25 ", " 4.00 ", " 0.20 "):
        assert cell in line
    assert "Medians of 3 runs, and their range." in FOUND.table()


def test_groups_are_settings_by_plan():
    slow = network("wan")
    mixed = [one(), one(plan="join"), one(network=slow), one(network=slow, protocol="shamir")]
    text = Comparison(HERE, mixed).table(80)
    assert re.findall(r"^\w+, \w+, 1,000 rows$", text, re.MULTILINE) == [
        "fit, lan, 1,000 rows",
        "fit, wan, 1,000 rows",
        "join, lan, 1,000 rows",
    ]


@settings(max_examples=25, deadline=None)
@given(comparisons)
def test_no_cell_is_cut_whatever_the_width(found):
    wide = found.table()
    table = found._table(None)
    for width in (40, 80, 200):
        text = found.table(width)
        columns = len(table.columns)
        cells = {cell for row in table.flat() for place, cell in enumerate(row[-columns:])
                 if not table.columns[place].wide}  # fmt: skip
        assert all(cell in text and cell in wide for cell in cells)
        longest = max(len(cell) for row in table.rows for cell in (*row.cells, row.label, row.about))
        assert max(map(len, text.splitlines())) <= max(width, 2 * longest + 20)
        if width == 80 and longest <= 15:
            assert max(map(len, text.splitlines())) <= 80


@settings(max_examples=25, deadline=None)
@given(comparisons)
def test_markdown_and_latex_have_as_many_cells_in_each_row(found):
    rows = [line for line in found.markdown().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {16}
    assert len(rows) == 2 + len(found)
    lines = [line for line in found.latex().splitlines() if line.endswith(r"\\") and "multi" not in line]
    assert {line.count(" & ") for line in lines} == {10}
    assert len(lines) == 1 + len(found)


def test_latex_is_escaped():
    assert escaped("50%_of {a}&b$#~^\\") == (
        r"50\%\_of \{a\}\&b\$\#\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escaped("1.4e-06 (1.0e-06–2.0e+00)") == (
        r"$1.4 \times 10^{-6}$ ($1.0 \times 10^{-6}$--$2.0 \times 10^{0}$)"
    )
    assert escaped("-") == "--"
    text = Comparison(HERE, [one(plan="my_study.py:fit|all")]).latex()
    assert r"\emph{my\_study.py:fit\textbar{}all, lan, 1,000 rows}" in text
    assert text.startswith("% Tercet 0.2")
    for command in (r"\begin{tabular}{llrrrrrrrrr}", r"\toprule", r"\bottomrule", r"\end{tabular}"):
        assert command in text
    assert r"fit\|all" in Comparison(HERE, [one(plan="fit|all")]).markdown()


# -- files ---------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(comparisons)
def test_json_holds_all(found):
    again = Comparison.from_json(json.loads(found.json()))
    assert (again.origin, again.measurements) == (found.origin, found.measurements)


def test_csv_has_a_line_for_each_run():
    lines = list(csv.DictReader(io.StringIO(FOUND.csv())))
    assert [(line["protocol"], line["run"], line["seconds"]) for line in lines] == [
        ("replicated", "1", "0.5"),
        ("rep4", "1", "1.0"),
        ("rep4", "2", "2.0"),
        ("rep4", "3", "6.0"),
        ("plain", "1", "0.05"),
    ]
    assert lines[0]["bytes_sent"] == "1000000 2000000 500000"
    assert (lines[0]["network"], lines[0]["latency_ms"], lines[4]["predicted_seconds"]) == ("lan", "0.25", "")


def test_endings_say_what_is_written(tmp_path):
    for name, start in (
        ("a.txt", "Tercet"), ("a.md", "Tercet"), ("a.tex", "% Tercet"), ("a.csv", "plan,"), ("a.json", "{"),
        ("a.svg", "<?xml"),
    ):  # fmt: skip
        FOUND.write(tmp_path / name)
        assert (tmp_path / name).read_text().startswith(start)
    drawn = (tmp_path / "a.svg").read_text()
    for told in ("replicated:3", "rep4:4", "plain", "fit, lan, 1,000 rows"):
        assert f">{told}</text>" in drawn
    with pytest.raises(PlanError, match=r"a\.doc ends in none of \.txt, \.md"):
        FOUND.write(tmp_path / "a.doc")
    with pytest.raises(PlanError, match="in a folder that is not there"):
        FOUND.plot(tmp_path / "gone" / "a.png")
    with pytest.raises(PlanError, match="no format 'doc'; choose one of table, markdown"):
        FOUND.written("doc")


def changed(*path, to):
    told = copy.deepcopy(json.loads(FOUND.json()))
    place = told
    for step in path[:-1]:
        place = place[step]
    if to is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(told)


FIRST = ("measurements", 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "holds no results; tercet compare --out NAME.json"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        (b"\xff\xfe\x00".decode("latin-1"), "is no JSON"),
        (changed("version", to=2), "its format has version 2, and this release reads 1 only"),
        (changed("version", to=True), "version True"),
        (changed("version", to=KeyError), "version None"),
        (changed("more", to=1), "the file has to have format, measurements, origin, version"),
        (changed("origin", "cores", to=KeyError), "origin has to have cores"),
        (changed("origin", "cores", to=0), "cores=0"),
        (changed("origin", "processor", to="\x1b[2J"), "processor is no line"),
        (changed("measurements", to={}), "measurements is no list"),
        (changed("measurements", 1, to=FOUND.to_json()["measurements"][0]), "is there twice for lan"),
        (changed(*FIRST, to=None), "measurement 1 has to have"),
        (changed(*FIRST, "plan", to="a\nb"), "plan is no line"),
        (changed(*FIRST, "plan", to="a" * 600), "plan is no line of at most 512"),
        (changed(*FIRST, "rows", to=-1), "rows=-1"),
        (changed(*FIRST, "parties", to=10**400), "parties is a number, not a whole number between 1"),
        (changed(*FIRST, "runs", 0, "seconds", to=10**400), "seconds is a number, not a number between"),
        (changed(*FIRST, "malicious", to="no"), "malicious='no'"),
        (changed(*FIRST, "runs", to=[]), "'fit' on 'replicated' has no runs"),
        (changed(*FIRST, "runs", to=3), "runs of measurement 1 is no list"),
        (changed(*FIRST, "runs", 0, "seconds", to=math.nan), "seconds=nan"),
        (changed(*FIRST, "runs", 0, "seconds", to="1"), "seconds='1'"),
        (changed(*FIRST, "runs", 0, "bytes_sent", to="123"), "bytes_sent='123'"),
        (changed(*FIRST, "runs", 0, "bytes_sent", to=[1, -1]), r"bytes_sent\[1\]=-1"),
        (changed(*FIRST, "network", "jitter_ms", to=9), "a jitter is at most the latency"),
        (changed(*FIRST, "network", "name", to="\u202e"), "name is no line"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path, text, why):
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlanError, match=why) as refused:
        load(path)
    assert str(refused.value).startswith(str(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tercet.comparison.outcome.MOST_FILE_BYTES", 100)
    FOUND.write(tmp_path / "old.json")
    with pytest.raises(PlanError, match="which no comparison is"):
        load(tmp_path / "old.json")


# -- against earlier results ---------------------------------------------------------------------------------


def test_ratios_to_earlier_results_and_what_is_missing():
    before = attrs.evolve(HERE, tercet="0.1", processor="slow")
    earlier = Comparison(before, (one(run(seconds=0.25, rounds=16)), one(plan="join"), CLEAR))
    text = FOUND.table(against=earlier)
    assert "Now: Tercet 0.2, Python 3.12.1; fast" in text
    assert "Before: Tercet 0.1, Python 3.12.1; slow" in text
    (line,) = [line.split() for line in text.splitlines() if "semi-honest" in line]
    assert line[-12:] == ["8", "16", "0.50", "2", "2", "1.00", "0.5", "0.25", "2.00", "110", "110", "1.00"]
    (line,) = [line.split() for line in text.splitlines() if line.startswith("fit  ") and "plain" in line]
    assert line[-12:-6] == ["0", "0", "-", "0", "0", "-"]
    assert "Not before: fit, lan, 1,000 rows, rep4:4." in text
    assert "Not now: join, lan, 1,000 rows, replicated:3." in text
    assert max(map(len, FOUND.table(80, earlier).splitlines())) <= 80
    for told in (FOUND.markdown(earlier), FOUND.latex(earlier)):
        assert "Not now: join" in told
        assert "0.50" in told


def test_a_network_of_the_same_name_that_is_another_is_not_compared():
    earlier = Comparison(HERE, [one(network=Network("lan", 1.0))])
    for width in (None, 80):
        text = Comparison(HERE, [one()]).table(width, earlier)
        assert "Not before: fit, lan" in text
        assert "Not now: fit, lan" in text
    assert "tabular" in Comparison(HERE, [one()]).latex(earlier)


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_prints_results_again(tmp_path):
    old = tmp_path / "old.json"
    FOUND.write(old)

    def tercet(*args):
        ran = CliRunner().invoke(app, ["compare", *map(str, args)])
        return ran.exit_code, ran.output

    for form in ("table", "markdown", "latex", "csv", "json"):
        assert tercet(old, "--format", form) == (0, FOUND.written(form))
    assert tercet(old, "--against", old, "--out", tmp_path / "a.tex")[0] == 0
    assert "before" in (tmp_path / "a.tex").read_text()
    for wrong, why in (
        ((old, "--repeat", 3), "has results already; leave out --repeat"),
        ((old, "join"), "leave out join"),
        ((tmp_path / "gone.json",), "cannot be read"),
        ((old, "--format", "doc"), "no format 'doc'"),
        (("join", "--out", tmp_path / "a.doc"), "ends in none of"),
        (("join", "--against", tmp_path / "a.tex"), "is no JSON"),
        (("join", "--protocols", "plain,replicatd"), "did you mean 'replicated'"),
        (("join", "--protocols", "shamir,shamir:3"), "protocol shamir:3 is there twice"),
        (("join", "--protocols", "rep4:3"), "runs with 4 parties"),
        (("join", "join"), "plan join is there twice"),
        (("join", "--rows", "5,5"), "number of rows 5 is there twice"),
        (("join", "--networks", "1ms/2ms"), "a jitter is at most the latency"),
        (("join", "--repeat", "0"), "repeat=0"),
    ):
        code, output = tercet(*wrong)
        assert code == 1
        assert why in " ".join(output.split())

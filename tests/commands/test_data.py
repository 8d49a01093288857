"""What owners write on the command line about their columns."""

import pytest
from typer.testing import CliRunner

from tercet.commands.data import app, ranges_of
from tercet.errors import SchemaError


def test_ranges_are_read():
    assert ranges_of([]) == {}
    assert ranges_of(["age=0:120", "a=b=-1.5:1e3"]) == {"age": (0, 120), "a=b": (-1.5, 1000)}


@pytest.mark.parametrize("word", ["age", "age=5", "age=0:x", "age=0:1:2", ""])
def test_what_is_no_range_is_refused(word):
    with pytest.raises(SchemaError, match="is no range; write it as in age=0:120"):
        ranges_of([word])


def test_the_command_knows_them():
    shown = CliRunner().invoke(app, ["upload", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert "--range" in shown
    assert "--missing" in shown

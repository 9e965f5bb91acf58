"""The page that says which test shows what the documents describe: each test exists, and no row is left out."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.documents import ROOT

PAGE = (ROOT / "docs" / "seeds.md").read_text()
ROWS = {
    "RL": (*range(1, 52), *range(60, 98)),
    "AL": range(1, 29),
    "TX": range(1, 18),
    "SK": range(1, 19),
    "TU": range(1, 12),
    "B": range(1, 31),
    "O": range(1, 22),
}
CONFLICTS = [f"C{number}" for number in range(1, 19)]
ROW = re.compile(r"^\| ([A-Z]{1,2}-\d\d|C\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)` `(test_\w+)`")


def exists(file, name):
    path = ROOT / file
    if not path.is_file():
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body)


def test_every_row_is_there_once():
    wanted = [f"{prefix}-{number:02}" for prefix, numbers in ROWS.items() for number in numbers]
    assert [row[0] for row in ROW.findall(PAGE)] == [*wanted, *CONFLICTS]


@pytest.mark.parametrize("row", ROW.findall(PAGE), ids=lambda row: row[0])
def test_what_a_row_names_exists_or_it_says_why_not(row):
    tests = TEST.findall(row[2])
    assert tests or row[2].startswith(("not yet: ", "refused: ", "no claim "))
    assert [f"{file}::{name}" for file, name in tests if not exists(file, name)] == []


def test_a_test_that_is_gone_would_be_found():
    assert exists("tests/docs/test_seeds.py", "test_a_test_that_is_gone_would_be_found")
    assert not exists("tests/docs/test_seeds.py", "test_that_is_gone")
    assert not exists("tests/docs/gone.py", "test_that_is_gone")

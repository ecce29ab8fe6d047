"""Every key of a TOML file has its line."""

from __future__ import annotations

import tomllib

import pytest

from leakgauge.audit.toml.lines import lines_of

TEXT = '''# a plan
name = "x" # not = here
"quoted key" = 1
a.b.c = 2
list = [
  "one", # [not a header]
  { steps = 1, deep = { er = 2 } },
  [3, 4],
]
long = """
[not.a.table]
key = 1
"""
raw = \'\'\'
x = "\'\'\'

[table]
key = 'it # is'

[table."sub table"]
key = 1979-05-27T07:32:00Z

[[many]]
first = 1

[many.inner]
key = 1

[[many]]
second = -inf
  [[many.more]]
  deepest = "a\\"b"
'''


def test_every_key_has_the_line_on_which_it_stands() -> None:
    tomllib.loads(TEXT)
    lines = lines_of(TEXT)
    wanted = {
        ("name",): 2, ("quoted key",): 3, ("a", "b", "c"): 4, ("list",): 5, ("list", 0): 6, ("list", 1, "steps"): 7,
        ("list", 1, "deep", "er"): 7, ("list", 2, 1): 8, ("long",): 10, ("raw",): 14, ("table",): 17, ("table", "key"): 18,
        ("table", "sub table", "key"): 21, ("many", 0): 23, ("many", 0, "first"): 24, ("many", 0, "inner", "key"): 27,
        ("many", 1, "second"): 30, ("many", 1, "more", 0, "deepest"): 32,
    }  # fmt: skip
    assert {place: lines.get(place) for place in wanted} == wanted


@pytest.mark.parametrize(
    "text", ["", "#", "a = 1", "a = 1\r\nb = 2\r\n", "a = []\nb = {}\n", 'a = ""\n', "[a]\n[b]\n", "a = [\n]"]
)
def test_small_files_are_walked_to_their_end(text: str) -> None:
    keys = tomllib.loads(text)
    assert {place[0] for place in lines_of(text)} == set(keys)

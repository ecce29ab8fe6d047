"""The text that names data."""

import pytest

from leakgauge.data import DataSpec, parse_data_spec
from leakgauge.errors import DataError, OptionError


def test_everything_at_once():
    spec = parse_data_spec("cifar10:some/path?indices=0-2,7,5-5&size=32x48&mean=0.1,0.2,0.3&std=0.5&split=test&channels=3")
    assert spec == DataSpec(
        "cifar10",
        "some/path",
        (range(0, 3), range(7, 8), range(5, 6)),
        (32, 48),
        (0.1, 0.2, 0.3),
        0.5,
        "test",
        3,
    )
    assert spec.select(8) == [0, 1, 2, 7, 5]


def test_defaults():
    assert parse_data_spec("folder:/a/b") == DataSpec("folder", "/a/b", None, None, 0.0, 1.0, None, None)
    assert parse_data_spec("folder:what?.d?size=8").path == "what?.d"
    assert parse_data_spec("demo:cat?grey=true").channels == 1
    assert parse_data_spec("demo:cat?grey=false").channels is None
    assert parse_data_spec("demo:cat").select(3) == [0, 1, 2]


def test_a_huge_range_costs_nothing():
    spec = parse_data_spec("demo:cat?indices=0-99999999999")
    with pytest.raises(DataError, match="holds one picture, index 0; there is no index 99999999999"):
        spec.select(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fodler:x", "There is no data source 'fodler'. Did you mean 'folder'?"),
        ("cat", "names no source; expected SOURCE:PATH such as folder:cat or demo:cat"),
        ("folder:", "names nothing after 'folder'; expected folder:PATH"),
        ("demo:?size=3", "expected demo:cat,astronaut"),
        ("demo:cat?szie=3", "has no option 'szie'. Did you mean 'size'?"),
        ("demo:cat?size", "gives 'size' no value"),
        ("demo:cat?", "has no option ''"),
        ("demo:cat?size=3&size=4", "gives 'size' twice"),
        ("demo:cat?indices=4-2", "indices=4-2 has the part '4-2'"),
        ("demo:cat?indices=-1", "has the part '-1'"),
        ("demo:cat?indices=1,,2", "has the part ''"),
        ("demo:cat?size=0", "size=0; expected 32"),
        ("demo:cat?size=3x4x5", "size=3x4x5; expected 32"),
        ("demo:cat?mean=a", "mean=a; expected a number"),
        ("demo:cat?mean=1,2", "mean=1,2; expected a number, or three joined by ','"),
        ("demo:cat?std=0", "std=0; expected a positive number"),
        ("demo:cat?std=nan", "std=nan; expected a positive number"),
        ("demo:cat?split=test", "'demo' has no parts"),
        ("mnist:x?split=valid", "split=valid; 'mnist' has the parts train, test"),
        ("demo:cat?channels=2", "channels=2; expected 1 or 3"),
        ("demo:cat?grey=yes", "grey=yes; expected true or false"),
        ("demo:cat?grey=true&channels=3", "grey=true contradicts channels=3"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(OptionError) as caught:
        parse_data_spec(text)
    assert words in str(caught.value)

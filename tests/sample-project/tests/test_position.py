import pytest

from bpm import position


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        ([1, 1, 1, 1], (0.0, 0.0)),
        ([2, 0, 0, 2], (10.0, 0.0)),
        ([1, 1, 0, 0], (0.0, 10.0)),
    ],
)
def test_position(signals, expected):
    assert position(signals) == expected


def test_no_beam():
    with pytest.raises(ValueError, match="no beam"):
        position([0, 0, 0, 0])

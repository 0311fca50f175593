import numpy as np
import pytest

from lightning_trainingkit.functional import _check


def test_numbers_of_numpy_become_those_of_python():
    assert type(_check.integer("n", np.int64(3), "Give one.")) is int
    assert type(_check.number("x", np.float32(0.5), "Give one.")) is float
    assert type(_check.number("x", 1, "Give one.")) is float


@pytest.mark.parametrize("value", [True, 2.0, "3", None, np.float64(2)])
def test_an_integer_is_no_flag_number_or_text(value):
    with pytest.raises(TypeError, match=r"`n` must be an integer, got .*Count them"):
        _check.integer("n", value, "Count them.")


@pytest.mark.parametrize(
    ("value", "bounds", "rule"),
    [
        (0, {"above": 0}, "above 0, got 0"),
        (2, {"above": 0, "most": 1}, "above 0 and at most 1, got 2"),
        (1, {"least": 0, "below": 1}, "at least 0 and below 1, got 1"),
        (float("inf"), {"above": 0}, "finite and above 0, got inf"),
        (float("nan"), {}, "finite, got nan"),
    ],
)
def test_a_number_outside_its_bounds_names_all_of_them(value, bounds, rule):
    with pytest.raises(ValueError, match=f"`x` must be {rule}. Try 0.5"):
        _check.number("x", value, "Try 0.5.", **bounds)


@pytest.mark.parametrize(("value", "choices"), [(1, [True, "disk"]), ("Disk", ["disk"]), ([], ["disk"])])
def test_one_of_tells_values_of_other_types_apart(value, choices):
    with pytest.raises(ValueError, match=r"`cache` must be one of .*'disk', got"):
        _check.one_of("cache", value, choices, "Choose one.")


def test_a_flag():
    assert _check.flag("verbose", False) is False
    with pytest.raises(TypeError, match="`verbose` must be True or False, got 'no'"):
        _check.flag("verbose", "no")


def test_the_nearest_names_come_first_also_to_a_pattern():
    names = ["model.conv1", *(f"model.layer{i}.{j}.conv1" for i in range(1, 5) for j in range(8)), "model.fc"]
    for pattern in ("fc*", "fc.weight", "model.cf"):
        assert _check.nearest(pattern, names)[0] == "model.fc"
    assert _check.nearest("head", ["Head", "head"])[:2] == ["Head", "head"]

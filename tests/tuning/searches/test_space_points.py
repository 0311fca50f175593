from collections import Counter

import numpy as np
import pytest

from lightning_trainingkit.tuning.searches.space_points import grid_points, middle, quasi_random_points, random_points
from lightning_trainingkit.tuning.trials.domains import Choices, Range
from lightning_trainingkit.tuning.trials.space import Space

SPACE = Space(
    {"lr": Range(1e-4, 1e-1, log=True), "layers": Range(1, 4, integer=True), "act": Choices(["relu", "gelu", None])}
)


@pytest.mark.parametrize("draw", [quasi_random_points, random_points])
def test_points_lie_in_the_space_and_the_first_do_not_depend_on_their_number(draw):
    points = draw(SPACE, 96, 3)
    assert draw(SPACE, 5, 3) == points[:5]
    assert draw(SPACE, 5, 4) != points[:5]
    for point in points:
        assert all(SPACE.holds(name, value) for name, value in point.items())
    assert Counter(point["layers"] for point in points).keys() == {1, 2, 3, 4}
    assert all(isinstance(point["layers"], int) for point in points)


def test_quasi_random_points_are_more_even_than_random_ones():
    def spread(points):
        rates = np.log10([point["lr"] for point in points])
        return np.histogram(rates, 8, (-4, -1))[0].std()

    assert spread(quasi_random_points(SPACE, 64)) < 0.3 * spread(random_points(SPACE, 64))
    acts = Counter(point["act"] for point in quasi_random_points(SPACE, 60))
    assert set(acts.values()) <= {19, 20, 21}


def test_a_grid_has_as_many_values_of_each_range_as_fit():
    points = grid_points(SPACE, 30)
    assert len(points) == 27
    assert len({tuple(point.values()) for point in points}) == 27
    assert sorted({point["lr"] for point in points}) == pytest.approx([1e-4, 10**-2.5, 1e-1])
    with pytest.raises(ValueError, match=r"`trials` must be at least 12 for a grid of lr, layers, act, got 11\."):
        grid_points(SPACE, 11)


def test_the_middle_of_a_range_is_in_its_own_measure():
    assert middle(SPACE["lr"]) == pytest.approx(10**-2.5)
    assert (middle(SPACE["layers"]), middle(SPACE["act"])) in {(2, "relu"), (3, "relu")}

import numpy as np
import pytest

from lightning_trainingkit.functional.repeated_values import drawn_to_the_mean, noise_of_repeats


def test_the_noise_of_repeats_is_pooled_over_configurations():
    draws = np.random.default_rng(0).normal(0, 0.3, (2000, 3)) + np.arange(2000)[:, None]
    assert noise_of_repeats(draws.tolist()) == pytest.approx(0.3, rel=0.05)
    assert noise_of_repeats([[1.0], [2.0]]) is None


def test_estimates_are_nearer_to_the_truth_than_means_are():
    random = np.random.default_rng(0)
    truth = random.normal(0, 1, 400)
    groups = [random.normal(each, 1, repeats).tolist() for each, repeats in zip(truth, [1, 3] * 200, strict=True)]
    estimates = np.array(drawn_to_the_mean(groups, 1.0))
    means = np.array([np.mean(group) for group in groups])
    assert np.square(estimates - truth).mean() < 0.75 * np.square(means - truth).mean()
    assert means.min() < truth[means.argmin()]  # the best mean was lucky


def test_without_noise_the_means_stay():
    assert drawn_to_the_mean([[1.0, 3.0], [5.0], [0.0]], 0.0) == [2.0, 5.0, 0.0]
    assert drawn_to_the_mean([[1.0], [1.1]], 10.0) == pytest.approx([1.05, 1.05], abs=1e-3)  # nothing but noise


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_bad_configuration_changes_no_other_estimate_much(mode):
    sign = 1 if mode == "min" else -1
    groups = [[sign * each] for each in (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7)]
    before = drawn_to_the_mean(groups, 0.05, mode)
    after = drawn_to_the_mean([*groups, [sign * 1e9]], 0.05, mode)[:-1]
    assert after == pytest.approx(before, abs=0.02)

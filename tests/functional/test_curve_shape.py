import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_trainingkit.functional.curve_measures import theil_sen
from lightning_trainingkit.functional.curve_names import choose_curves
from lightning_trainingkit.functional.curve_rules import RULES
from lightning_trainingkit.functional.curve_shape import SHAPES, curve_shapes

EPOCHS, STEPS = 20, 25  # steps of an epoch


def falling(low, speed=6.0, high=2.3):
    """A loss that falls from ``high`` to ``low``, at the end of each epoch."""
    return low + (high - low) * np.exp(-speed * np.arange(1, EPOCHS + 1) / EPOCHS)


def shaken(values, size, seed=0):
    return values * np.exp(size * np.random.default_rng(seed).standard_normal(len(values)))


TRAININGS = {  # training loss and validation loss after each epoch
    "healthy": (falling(0.05), falling(0.15)),
    "not_started": (np.full(EPOCHS, 2.30), np.full(EPOCHS, 2.31)),
    "diverged": (np.r_[falling(0.3)[:12], np.full(8, 9.0)], np.r_[falling(0.3)[:12], np.full(8, 9.0)]),
    "plateau": (shaken(falling(0.9), 0.08), shaken(falling(0.9), 0.12, seed=1)),
    "cut_too_early": (falling(0.0, 1.5), falling(0.01, 1.5)),
    "overfit": (falling(0.0), falling(0.9) + 0.06 * np.arange(EPOCHS)),
    "underfit": (falling(1.2), falling(1.22)),
    "noisy": (falling(0.4), shaken(falling(0.8), 0.9)),
    "leaked": (falling(0.0, 9.0), falling(0.0, 9.2)),
}


def curves(shape, by_step=False, scale=1.0, stretch=1.0):
    """The curves of a training, with the training loss of steps (noisy) or of epochs (as means)."""
    train, val = TRAININGS[shape]
    ends = stretch * np.arange(STEPS, (EPOCHS + 1) * STEPS, STEPS)
    before = np.r_[2.3, train]
    if by_step:
        steps = np.arange(1, EPOCHS * STEPS + 1)
        losses = np.interp(steps / STEPS, np.arange(EPOCHS + 1), before)
        return {"train_loss": (stretch * steps, scale * shaken(losses, 0.1)), "val_loss": (ends, scale * val)}
    return {"train_loss": (ends, scale * (before[:-1] + before[1:]) / 2), "val_loss": (ends, scale * val)}


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("shape", TRAININGS)
def test_each_shape_is_named_from_steps_and_from_epochs(shape, by_step):
    first = curve_shapes(curves(shape, by_step))[0]
    assert first.shape == shape
    assert first.advice == SHAPES[shape]


@settings(max_examples=25)
@given(shape=st.sampled_from(list(TRAININGS)), scale=st.floats(1e-6, 1e6), stretch=st.floats(1e-3, 1e6))
def test_units_of_loss_and_steps_do_not_matter(shape, scale, stretch):
    plain, other = curve_shapes(curves(shape)), curve_shapes(curves(shape, scale=scale, stretch=stretch))
    assert [seen.shape for seen in plain] == [seen.shape for seen in other]


@settings(max_examples=25)
@given(shape=st.sampled_from(list(TRAININGS)), seed=st.integers(0, 10**6))
def test_the_order_of_the_points_does_not_matter(shape, seed):
    given_curves = curves(shape, by_step=True)
    order = {name: np.random.default_rng(seed).permutation(len(steps)) for name, (steps, _) in given_curves.items()}
    mixed = {name: (steps[order[name]], values[order[name]]) for name, (steps, values) in given_curves.items()}
    assert curve_shapes(mixed) == curve_shapes(given_curves)


@settings(max_examples=50)
@given(
    train=st.lists(st.floats(allow_nan=True, width=32), min_size=2, max_size=12),
    val=st.lists(st.floats(allow_nan=True, width=32), min_size=0, max_size=12),
)
def test_any_numbers_have_a_shape(train, val):
    with np.errstate(all="ignore"):
        seen = curve_shapes({"train_loss": (range(len(train)), train), "val_loss": (range(len(val)), val)})
    assert seen
    assert all(each.shape in SHAPES for each in seen)
    if not np.isfinite(train + val).all():  # also of losses below zero
        assert seen[0].shape == "diverged"


def test_two_epochs_are_too_few():
    (seen,) = curve_shapes({"train_loss": ([1, 2], [1.0, 0.6]), "val_loss": ([1, 2], [1.1, 0.7])})
    assert (seen.shape, seen.value) == ("unclear", None)
    assert "2 epochs are too few" in seen.message


def test_without_validation_gaps_are_not_judged():
    for shape in ("overfit", "leaked"):
        alone = {"train_loss": curves(shape)["train_loss"]}
        assert curve_shapes(alone)[0].shape not in ("overfit", "leaked", "underfit")
    assert curve_shapes({"train_loss": curves("not_started")["train_loss"]})[0].shape == "not_started"


def test_a_flat_loss_with_a_high_accuracy_is_no_training_that_never_started():
    steps = np.arange(10)
    flat = {"train_loss": (steps, np.full(10, 0.1)), "val_loss": (steps, np.full(10, 0.15))}
    assert curve_shapes(flat)[0].shape == "not_started"
    known = flat | {"val_acc": (steps, np.full(10, 0.95))}
    assert "not_started" not in [seen.shape for seen in curve_shapes(known)]


def test_a_decayed_rate_is_no_plateau_and_not_cut():
    steps = np.arange(EPOCHS)
    for shape in ("plateau", "cut_too_early"):
        ended = curves(shape) | {"rate": (STEPS * (steps + 1), np.linspace(1, 0, EPOCHS))}
        assert curve_shapes(ended)[0].shape != shape


def test_better_validation_by_dropout_is_no_leak():
    train, val = falling(0.25, 9.0), falling(0.1, 9.0)
    steps = np.arange(EPOCHS)
    assert curve_shapes({"train_loss": (steps, train), "val_loss": (steps, val)})[0].shape == "healthy"


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_theil_sen_is_the_median_slope(values):
    slopes = [(values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))]
    assert theil_sen(np.array(values)) == pytest.approx(np.median(slopes), abs=1e-9)


def test_losses_below_zero_have_no_shape():
    steps = np.arange(10)
    (seen,) = curve_shapes({"train_loss": (steps, 3.0 - steps)})
    assert seen.shape == "unclear"
    assert "below zero" in seen.message


def test_accuracy_in_percent():
    steps = np.arange(10)
    flat = {"train_loss": (steps, np.full(10, 0.1)), "val_acc": (steps, np.full(10, 95.0))}
    assert "not_started" not in [seen.shape for seen in curve_shapes(flat)]


def test_with_two_values_of_validation_the_training_loss_is_judged():
    steps = np.arange(400)
    still_falling = {"train_loss": (steps, 2.3 * np.exp(-steps / 300)), "val_loss": ([200, 399], [1.0, 0.8])}
    (seen,) = curve_shapes(still_falling)
    assert seen.shape == "cut_too_early"
    assert "training loss" in seen.message


def test_every_shape_has_advice_and_a_rule():
    assert set(SHAPES) == {*RULES, "unclear"}
    assert [shape for shape, advice in SHAPES.items() if not advice] == ["healthy"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["train/loss", "val/loss", "train/acc", "val/acc", "lr-AdamW"],
            {
                "train_loss": "train/loss",
                "val_loss": "val/loss",
                "train_acc": "train/acc",
                "val_acc": "val/acc",
                "rate": "lr-AdamW",
            },
        ),
        (["loss", "val_loss"], {"train_loss": "loss", "val_loss": "val_loss"}),
        (["train_mse", "val_mse", "val_mae"], {"train_loss": "train_mse", "val_loss": "val_mse"}),
        (
            ["train_loss", "val/loss/dataloader_idx_1", "val/loss/dataloader_idx_0"],
            {"train_loss": "train_loss", "val_loss": "val/loss/dataloader_idx_0"},
        ),
        (["train_loss", "val_f1", "train_f1"], {"train_loss": "train_loss"}),
        (["test_loss", "epoch"], {}),
    ],
)
def test_curves_are_chosen_by_name(names, chosen):
    assert choose_curves(dict.fromkeys(names, 10)) == chosen


def test_sparse_losses_of_steps_give_way_to_means_of_epochs():
    counts = {"train_loss_step": 20, "train_loss_epoch": 10, "val_loss": 10}
    assert choose_curves(counts)["train_loss"] == "train_loss_epoch"
    assert choose_curves(counts | {"train_loss_step": 30})["train_loss"] == "train_loss_step"


def test_a_first_epoch_that_exploded_is_no_fall():
    steps = np.arange(EPOCHS)
    flat = np.r_[2e4, 150.0, np.full(EPOCHS - 2, 1.4)]
    assert curve_shapes({"train_loss": (steps, flat), "val_loss": (steps, flat / 2)})[0].shape == "diverged"
    fell = np.r_[9.0, falling(1.4)[1:]]
    losses = {"train_loss": (steps, fell), "val_loss": (steps, fell)}
    guessed = losses | {"train_acc": (steps, np.full(EPOCHS, 0.26)), "val_acc": (steps, np.full(EPOCHS, 0.25))}
    assert curve_shapes(guessed)[0].shape == "diverged"
    learned = losses | {"train_acc": (steps, np.linspace(0.2, 0.6, EPOCHS))}
    assert curve_shapes(learned)[0].shape != "diverged"


def test_a_small_gap_between_tiny_losses_is_no_leak():
    steps = np.arange(EPOCHS)
    train = falling(0.02, 9.0)
    before = np.r_[2.3, train]
    means = (before[:-1] + before[1:]) / 2
    for gap, shape in ((1.0, "leaked"), (1.25, "healthy")):
        assert curve_shapes({"train_loss": (steps, means), "val_loss": (steps, gap * train)})[0].shape == shape


def test_a_slow_steady_fall_is_cut_too_early_and_a_fall_that_ends_is_not():
    steps = np.arange(1, EPOCHS + 1)
    slow = 2.3 - 0.03 * steps
    assert curve_shapes({"train_loss": (steps, slow), "val_loss": (steps, slow)})[0].shape == "cut_too_early"
    rest = 1.9 + 0.4 * (1 + np.cos(np.pi * steps / EPOCHS)) / 2  # as under a cosine schedule that was not logged
    assert curve_shapes({"train_loss": (steps, rest), "val_loss": (steps, rest)})[0].shape == "underfit"


def test_unscaled_targets_are_no_explosion():
    steps = np.arange(1, EPOCHS + 1)
    fell = 4e10 * np.exp(-0.3 * steps) + 1e9
    assert curve_shapes({"train_loss": (steps, fell), "val_loss": (steps, 1.2 * fell)})[0].shape == "healthy"


def test_a_low_loss_without_a_gap_is_no_leak_while_it_still_falls():
    steps = np.arange(1, EPOCHS + 1)
    losses = np.exp(-0.12 * steps)
    shapes = [seen.shape for seen in curve_shapes({"train_loss": (steps, losses), "val_loss": (steps, 0.95 * losses)})]
    assert shapes == ["cut_too_early"]


def test_a_small_first_batch_is_no_rise():
    steps = np.arange(1, EPOCHS * STEPS + 1)
    losses = np.full(len(steps), 2.3)
    losses[0] = 1.2
    flat = {"train_loss": (steps, losses), "val_loss": (STEPS * np.arange(1, EPOCHS + 1), np.full(EPOCHS, 2.3))}
    assert curve_shapes(flat)[0].shape == "not_started"

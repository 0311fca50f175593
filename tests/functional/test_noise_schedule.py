import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.functional.noise_schedule import check_schedule, scheduled_rate

shares = st.floats(0, 1)


@given(share=shares, until=st.floats(0.01, 1), rate=st.floats(0, 0.99))
def test_rates_stay_between_0_and_the_rate_and_a_fall_mirrors_a_rise(share, until, rate):
    rise, fall = (scheduled_rate(rate, share, kind, until) for kind in ("rise", "fall"))
    assert 0 <= rise <= rate
    assert rise + fall == pytest.approx(rate)
    assert scheduled_rate(rate, share, "constant", until) in (0, rate)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.4, 0.4, 0, 0]), ("rise", [0, 0.2, 0.4, 0.4]), ("fall", [0.4, 0.2, 0, 0])],
)
def test_the_rates_at_four_moments(schedule, rates):
    assert [scheduled_rate(0.4, share, schedule, 0.5) for share in (0, 0.25, 0.5, 1)] == pytest.approx(rates)


def test_a_constant_rate_without_an_end_lasts_to_the_end():
    assert scheduled_rate(0.4, 1.0) == 0.4


@pytest.mark.parametrize(("schedule", "until"), [("linear", 1), ("rise", 0), ("fall", 1.1), (None, 1)])
def test_bad_schedules(schedule, until):
    with pytest.raises(ValueError, match=r"`(schedule|until)` must be"):
        check_schedule(schedule, until)

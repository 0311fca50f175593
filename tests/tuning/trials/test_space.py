import pytest

from lightning_trainingkit.tuning.searches.space_moves import default_space, edges, narrow, near_rate
from lightning_trainingkit.tuning.trials.domains import Choices, Range
from lightning_trainingkit.tuning.trials.source import Source
from lightning_trainingkit.tuning.trials.space import Space

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
TEXTS = {"weight_decay": [0, 1e-5, -1500.0], "name": ["1e-5", "1e-5x"]}


def test_a_space_from_yaml_is_the_one_from_python(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "lr: {low: 1e-4, high: 1e-1, log: true}\nwidth: {low: 8, high: 64, integer: true}\nact: [relu, gelu]\n"
        "weight_decay: [0, 1e-5, -1.5E+3]\nname: ['1e-5', 1e-5x]\n"
    )
    space = Space({"act": ["relu", "gelu"], "lr": RATE, "width": Range(8, 64, integer=True)} | TEXTS)
    assert Space.from_yaml(file).version == space.version
    assert Space(space.form).version == space.version
    assert Space({**space.form, "lr": {**RATE, "high": 0.2}}).version != space.version


def test_optuna_draws_from_the_ranges_alone():
    import optuna

    space = Space({"lr": RATE, "width": {"low": 8, "high": 64, "integer": True}, "act": ["relu", None, True]})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        params = study.ask(space.to_distributions()).params
        assert all(space.holds(name, value) for name, value in params.items())
        assert isinstance(params["width"], int)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "must hold a hyperparameter, got an empty one"),
        ({"lr": {"low": 1.0, "high": 0.1}}, "'lr': `high` must be above `low` 1, got 0.1: reversed"),
        ({"lr": {"low": 1, "high": 1}}, "empty. Give choices"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "`low` must be above 0 with log=True"),
        ({"lr": {"low": "small", "high": 1}}, "`low` must be a number, got 'small'"),
        ({"lr": {"low": 0.5, "high": 2, "integer": True}}, "`low` must be an integer, got 0.5"),
        ({"lr": {"low": 0.5}}, "`high` must be given"),
        ({"lr": {"min": 0.5, "high": 1}}, "`key` must be one of 'low', 'high'"),
        ({"lr": {"low": float("nan"), "high": 1}}, "must be finite"),
        ({"lr": []}, "`choices` must hold a value"),
        ({"lr": [1, 1]}, "each value once"),
        ({"lr": [1, True]}, "each value once"),
        ({"lr": [object()]}, "texts, numbers"),
        ({"lr": 0.1}, "a range or a list must be given, got 0.1"),
        ({3: [1]}, "by texts, got 3"),
        (["lr"], "must be a dict, got list"),
    ],
)
def test_a_wrong_space_is_refused(given, said):
    with pytest.raises((TypeError, ValueError)) as error:
        Space(given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold hyperparameters by name, got nothing. Write NAME: {low: 1e-4,"),
        ("- lr", "must hold hyperparameters by name, got a list. Write NAME: {low: 1e-4,"),
        ("lr: abc", "'lr': a range or a list must be given, got 'abc'. Write NAME: {low: 1e-4, high: 0.1, log: true}"),
        ("lr: {low: 1e-4}", "or NAME: [relu, gelu] for choices."),
        ('lr: {low: "a", high: 1}', "'lr': `low` must be a number, got 'a'"),
        ("widths: [[32], [32, 32]]", "'widths': `choices` must hold texts, numbers, True, False or None, got [32]"),
        ("lr: [1, 2", "must be a YAML file, got while parsing a flow sequence in"),
    ],
)
def test_a_wrong_space_in_a_file_is_a_value_error_of_one_line_with_advice_in_yaml(tmp_path, text, said):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"space\.yaml` must") as error:
        Space.from_yaml(tmp_path / "space.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert '{"low"' not in str(error.value)


def test_a_hyperparameter_that_the_module_does_not_have():
    with pytest.raises(ValueError, match=r"got 'learning_rat'\. There are: learning_rate"):
        Space({"learning_rat": RATE}).check_names(["width", "learning_rate"])


@pytest.mark.parametrize("now", [0, 1, True, 8.0, None])
def test_a_range_of_whole_numbers_may_be_meant_as_floats(now):
    Space({"width": {"low": 8, "high": 64}}).check_integers({"width": now})


def test_an_integer_needs_a_range_of_integers():
    given = {"width": 32}
    Space({"width": {"low": 8, "high": 64, "integer": True}}).check_integers(given)
    Space({"width": {"low": 0.5, "high": 64}}).check_integers(given)
    with pytest.raises(ValueError, match="'width', now 32, is an integer: the range 8 to 64 has"):
        Space({"width": {"low": 8, "high": 64}}).check_integers(given)


def test_the_default_is_a_decade_around_the_rate():
    source = Source(dict, given={"lr": 0.01, "weight_decay": 0.0}, names=("lr", "weight_decay"), describe="")
    space = default_space(source)
    assert space["lr"] == Range(0.001, 0.1, log=True)
    assert space["weight_decay"] == Choices([0.0, 1e-5, 1e-4])
    assert default_space(source, rate=1.0)["lr"].high == 10
    momentum = Source(dict, given={"lr": 0.01, "decay": 0.999}, names=("lr", "decay", "l2"), describe="")
    assert list(default_space(momentum)) == ["lr"]  # the decay of an average is no weight decay
    with pytest.raises(ValueError, match="There are: width"):
        default_space(Source(dict, given={}, names=("width",), describe=""))


def test_a_given_range_of_rates_is_searched_around_step_3s_rate_and_never_left():
    space = Space({"lr": Range(1e-5, 1.0, log=True), "drop": Range(0.0, 0.5)})
    assert near_rate(space, "lr", 0.01).form == {
        "lr": {"low": 1e-3, "high": 0.1, "log": True},
        "drop": space.form["drop"],
    }
    assert near_rate(space, "lr", 0.5)["lr"] == Range(0.05, 1.0, log=True)
    for name, rate in (("lr", 2.0), ("lr", None), (None, 0.01), ("data.lr", 0.01)):
        assert near_rate(space, name, rate) is space
    choices = Space({"lr": [0.1, 0.01]})
    assert near_rate(choices, "lr", 0.01) is choices


def test_narrowing_keeps_the_best_and_never_grows():
    space = Space({"lr": RATE, "width": {"low": 8, "high": 64, "integer": True}, "act": ["relu", "gelu"]})
    results = [{"lr": 10 ** -(2 + n / 10), "width": 30 + n, "act": "gelu" if n < 5 else "relu"} for n in range(20)]
    smaller = narrow(space, results)
    assert smaller["act"].values == ("relu", "gelu")  # short trials say little about a choice
    for name in ("lr", "width"):
        assert space[name].low <= smaller[name].low < smaller[name].high <= space[name].high
        assert all(smaller.holds(name, each[name]) for each in results[:5])
    assert smaller["lr"].high / smaller["lr"].low < 10
    assert narrow(space, results[:2]).version == space.version


def test_the_best_at_an_edge_of_its_range():
    space = Space({"lr": RATE, "width": {"low": 8, "high": 64, "integer": True}})
    assert edges(space, [{"lr": 0.09, "width": 32}]) == {"lr": "high"}
    assert edges(space, [{"lr": 0.01, "width": 8}]) == {"width": "low"}
    assert edges(space, []) == {}


def test_narrowing_to_one_value_leaves_its_neighbours():
    space = Space({"depth": {"low": 1, "high": 12, "integer": True}, "lr": RATE})
    tried = [{"depth": depth, "lr": lr} for depth, lr in [(6, 1e-3)] * 3 + [(1, 1e-5)] * 8 + [(12, 0.1)]]
    smaller = narrow(space, tried)
    assert (smaller["depth"].low, smaller["depth"].high) == (5, 7)
    assert (smaller["lr"].low, smaller["lr"].high) == (pytest.approx(1e-4), pytest.approx(1e-2))
    edge = narrow(space, [{"depth": 12, "lr": space["lr"].low}] * 3)
    assert (edge["depth"].low, edge["depth"].high) == (11, 12)
    assert space["lr"].low == edge["lr"].low < edge["lr"].high < space["lr"].high

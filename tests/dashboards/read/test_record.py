import collections

from lightning_trainingkit.dashboards.read.record import LEFT_OUT, flatten


def test_a_list_of_plain_values_is_one_setting():
    settings = {
        "betas": (0.9, 0.999),
        "layers": [{"width": 3}, {"width": 4}],
        "grid": [[1, 2], [3]],
        "empty": [],
        1: {None: "x"},
    }
    assert flatten(settings) == {
        "betas": "[0.9, 0.999]",
        "layers.0.width": 3,
        "layers.1.width": 4,
        "grid.0": "[1, 2]",
        "grid.1": "[3]",
        "1.None": "x",
    }


def test_secrets_in_a_list_are_hidden_before_it_is_a_text():
    found = flatten({"argv": ["--token", "abcdefgh", "--lr", "0.1"], "api_keys": ["hunter2hunter2"]})
    assert "abcdefgh" not in found["argv"]
    assert "0.1" in found["argv"]
    assert "hunter2" not in found["api_keys"]


def test_settings_are_bounded_in_number_depth_and_length():
    assert flatten({str(number): number for number in range(4000)}).keys() == {str(number) for number in range(4000)}
    many = flatten({str(number): number for number in range(100_000)})
    assert len(many) == 5001
    assert "below 30 levels, are missing" in many[LEFT_OUT]
    deep = value = {}
    for _ in range(5000):
        value["a"] = value = {}
    value["a"] = 1
    assert set(flatten({"x": 1, "deep": deep})) == {"x", LEFT_OUT}
    around = {"x": 1}
    around["again"] = [around, around, {}]
    assert LEFT_OUT in flatten(around)
    long = flatten({"text": "x" * 10_000_000, "list": ["y" * 500] * 5000, "number": 10**5000, "inf": float("inf")})
    assert max(len(str(value)) for value in long.values()) <= 1010
    assert long["inf"] == float("inf")


def test_other_objects_are_texts():
    assert flatten({"a": {"b", "a"}, "b": collections.OrderedDict(c=b"x")}) == {"a": "['a', 'b']", "b.c": "b'x'"}

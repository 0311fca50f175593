"""The gradients are sigmoid's, one image gives gradients of one sign, and the steps are in table and results."""

import json
import math

import pytest

SMALL = ("--seeds", "2", "--error", "0.6", "--steps", "800")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, run_recipe):
    folder = tmp_path_factory.mktemp("activations")
    said = run_recipe("reproduce/activations.py", *SMALL, folder=folder).stdout
    folder = folder / "runs/activations"
    return folder, said, json.loads((folder / "results.json").read_text())


def test_saturation_and_signs(ran):
    metrics = ran[2]["metrics"]
    for point in (-10, 0, 10):
        value = 1 / (1 + math.exp(-point))
        assert metrics[f"gradient of sigmoid at {point}"] == pytest.approx(value * (1 - value), rel=1e-6)
    assert metrics["one sign after sigmoid, 1 images"] == 1
    assert 0.5 < metrics["one sign after tanh, 1 images"] < 0.7
    assert 0.5 < metrics["one sign after sigmoid, 32 images"] < 1


def test_steps_until_the_error(ran):
    folder, said, found = ran
    rows = {row["activation"]: row for row in found["rows"]}
    assert list(rows) == ["relu", "tanh", "sigmoid"]
    assert rows["relu"]["times ReLU"] == 1
    assert rows["sigmoid"]["steps"] > rows["relu"]["steps"]
    for row in rows.values():
        assert row["steps"] % 2.5 == 0  # the mean of two seeds, looked at every 5 steps
        assert f"{row['steps']:.0f} +- {row['steps +-']:.0f}" in said
    assert [each["figure"] for each in found["figures"]] == [3, 3, 4]
    assert all(f"{each['claim']}: {each['verdict']}." in said for each in found["figures"])
    assert (folder / "activations.png").read_bytes().startswith(b"\x89PNG")


def test_an_error_that_is_not_reached_is_one_line(refused, tmp_path):
    said = refused("reproduce/activations.py", "--seeds", "2", "--steps", "5", "--error", "0", folder=tmp_path)
    assert "--error must be reached within --steps 5, got no rate for relu that does" in said.splitlines()[-1]

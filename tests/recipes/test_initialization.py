"""The lecture's six layers in small, against the lecture's own lines of numpy."""

import json

import numpy as np
import pytest

SMALL = ("--width", "512", "--seeds", "1")


@pytest.fixture(scope="module")
def ran(tmp_path_factory, run_recipe):
    folder = tmp_path_factory.mktemp("initialization")
    said = run_recipe("reproduce/initialization.py", *SMALL, folder=folder).stdout
    folder = folder / "runs/initialization"
    return folder, said, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    ("activation", "scheme", "std"),
    [
        ("tanh", "normal(0.05)", 0.05),
        ("tanh", "xavier_normal", 512**-0.5),
        ("relu", "xavier_normal", 512**-0.5),
        ("relu", "kaiming_normal", (2 / 512) ** 0.5),
    ],
)
def test_stds_are_those_of_the_lectures_loop(ran, activation, scheme, std):
    draw = np.random.default_rng(1)
    x, stds = draw.standard_normal((16, 512)), []
    for _ in range(6):
        x = x.dot(std * draw.standard_normal((512, 512)))
        x = np.tanh(x) if activation == "tanh" else np.maximum(0, x)
        stds.append(x.std())
    rows = [row for row in ran[2]["rows"] if (row["activation"], row["scheme"]) == (activation, scheme)]
    assert [row["layer"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["std"] for row in rows] == pytest.approx(stds, rel=0.25)


def test_every_claim_is_in_the_table_and_in_the_results(ran):
    folder, said, found = ran
    verdicts = {each["claim"]: each["verdict"] for each in found["figures"]}
    assert verdicts["ReLU, Kaiming: activations are nicely scaled for all layers"] == "holds"
    assert verdicts["ReLU, Xavier: activations collapse to zero"] == "holds"
    assert len(verdicts) == 7
    assert all(f"{text}: {verdict}." in said for text, verdict in verdicts.items())
    assert {each["command"] for each in found["figures"]} == {
        "python recipes/reproduce/initialization.py --width 512 --seeds 1"
    }
    assert (folder / "initialization.png").read_bytes().startswith(b"\x89PNG")

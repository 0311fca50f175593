import json
import time

import pytest

from lightning_trainingkit.dashboards.page.page_data import page_data
from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.secret import hide, hide_settings
from tests.dashboards.made import run
from tests.dashboards.made_secrets import NAMES, ORDINARY, drawn, values


@pytest.mark.parametrize(("text", "secret"), values().values(), ids=values())
def test_a_secret_of_known_form_is_hidden_in_any_text(text, secret):
    shown = [hide(text), hide(f"run/{text}"), *hide_settings({text: 1}), hide_settings({"a": [{"b": text}]})]
    assert secret not in json.dumps(shown)
    assert "***" in shown[0]
    assert hide(shown[0]) == shown[0]  # W&B's copy is hidden once more on the page


@pytest.mark.parametrize("name", NAMES)
def test_a_telling_name_hides_every_text(name):
    for settings in ({name: "hunter2x"}, {"a": {name: {"b": ["hunter2x"]}}}, {f"a.{name}": "hunter2x"}):
        assert "hunter2x" not in json.dumps(hide_settings(settings))


@pytest.mark.parametrize("flag", ["--token", "--wandb-key", "--hf-token=", "--auth", "--db.password"])
def test_a_flag_hides_what_comes_next(flag):
    text = f"train.py {flag}hunter2x" if flag.endswith("=") else f"train.py {flag} hunter2x"
    settings = {"argv": ["--lr", "0.1", flag, "hunter2x"], "flat.0": flag, "flat.1": "hunter2x", "text": text}
    found = hide_settings(settings)
    assert "hunter2x" not in json.dumps(found)
    assert found["argv"][:3] == ["--lr", "0.1", flag]


def test_ordinary_settings_stay():
    assert hide_settings(ORDINARY) == ORDINARY
    assert {name: hide(value) for name, value in ORDINARY.items() if isinstance(value, str)}.items() <= ORDINARY.items()


def test_equal_secrets_look_equal_and_a_short_one_has_no_hash_to_guess_it_by():
    one, other = drawn(30), drawn(30)
    found = hide_settings({"token": one, "api_key": one, "secret": other, "password": 123456, "pwd": "123456"})
    assert found["token"] == found["api_key"] != found["secret"]
    assert len(found["token"]) == 7
    assert found["password"] == found["pwd"] == "***"


def test_the_own_key_of_wandb_is_hidden_though_it_has_no_form(monkeypatch):
    key = drawn(40, "0123456789abcdef")
    assert hide(key) == key
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert key not in hide(f"key is {key}")


PIECES = [
    "a",
    " ",
    "-",
    "eyJ",
    "eyJ-",
    "://a:",
    "sk-",
    "token ",
    "--a ",
    "a=b ",
    'token="',
    "token=[",
    "1:",
    "Aa",
    "a.-",
]


@pytest.mark.parametrize(
    "piece", [*PIECES, "-----BEGIN PRIVATE KEY ", "/services/T", "Bearer ", "://a@", "SG.", "\\", "[("]
)
def test_time_is_linear_in_the_text(piece):
    text = (piece * 100_000)[:100_000]
    start = time.perf_counter()
    hide(text)
    hide_settings({text: "x"})
    assert time.perf_counter() - start < 1  # in fact below 0.1 s; a quadratic pattern takes minutes


def test_no_secret_is_on_the_page():
    secrets = [f"{'gh' + 'p_'}{drawn(36)}" for _ in range(12)]
    places = ("id", "name", "project", "group", "job_type", "note")
    record = run(1, **dict(zip(places, secrets, strict=False)), tags=[secrets[6]])
    record.config |= {"hf_token": "hunter2x", "args.0": "--auth", "args.1": "hunter3x", secrets[7]: 1, "x": secrets[8]}
    record.curves[secrets[9]] = record.curves["val/loss"]
    record.summary[secrets[10]] = 1.0
    record.goals[secrets[9]] = "min"
    data = page_data([record, run(2)], command_center(), hide(secrets[9]), {f"/runs/{secrets[11]}": "it is empty"})
    text = json.dumps(data)
    assert not [secret for secret in [*secrets, "hunter2x", "hunter3x"] if secret in text]
    assert hide(secrets[9]) in text
    assert data["hyperparameters"] == ["lr", "weight_decay"][: len(data["hyperparameters"])]

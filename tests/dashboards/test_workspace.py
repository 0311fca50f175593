import json

import pytest

from lightning_trainingkit.dashboards.panels import command_center
from lightning_trainingkit.dashboards.workspace import build_workspace, save_workspace

SETTINGS = ["lr", "weight_decay", "optimizer"]


@pytest.fixture
def built(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")  # nobody answers there
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    return build_workspace("entity", "project", command_center(), SETTINGS)


def test_it_is_built_without_an_account_and_has_all_sections(built):
    assert [section.name for section in built.sections] == [section.title for section in command_center()]
    assert all(section.panels for section in built.sections)
    spec = json.loads(built._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    words = json.dumps(spec)
    for name in ("train/loss", "val/loss", "train/acc", "val/acc", "test/acc", "test/ece", "trainer/global_step"):
        assert f'"{name}"' in words
    assert '"average"' in words
    assert built.settings.max_runs == 50
    assert not built.auto_generate_panels


def test_saving_needs_an_account(built, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb.api, "_api_key", None, raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    with pytest.raises(ValueError, match=r"`WANDB_API_KEY` must be set .* wandb login"):
        save_workspace("entity", "project", command_center(), SETTINGS)

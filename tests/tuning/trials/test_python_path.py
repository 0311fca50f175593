import importlib
import sys

from lightning_trainingkit.tuning.trials.python_path import python_path


def test_a_file_in_the_working_folder_is_named(tmp_path, monkeypatch):
    """LightningCLI goes to the folder of the YAML while it reads, so that the working folder is not searched."""
    (tmp_path / "in_the_folder.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    importlib.import_module("in_the_folder")
    try:
        assert python_path({"model": {"class_path": "in_the_folder.Module"}}) == f"PYTHONPATH={tmp_path}:$PYTHONPATH "
    finally:
        del sys.modules["in_the_folder"]
    assert python_path({"model": {"class_path": "torch.nn.Linear"}}) == ""

import contextlib
import json
import pathlib

import pytest
import torch
from torch import nn

from lightning_trainingkit import best_path, load_best
from lightning_trainingkit.nn.weights.checkpoint import load_weights, write_manifest
from lightning_trainingkit.nn.weights.read_checkpoint import RUN


class RunsCode:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("was_run"),)


def save(folder, content, name="best.ckpt"):
    torch.save(content, folder / name)
    write_manifest(
        str(folder), "val/acc", "max", {str(folder / name): torch.tensor(0.5)}, {str(folder / name): [1, 10]}
    )


def test_the_best_weights_are_found_and_loaded_in_place(tmp_path):
    source, module = nn.Linear(3, 2), nn.Linear(3, 2)
    save(tmp_path, {"state_dict": source.state_dict()})
    weight = module.weight
    assert load_best(module, tmp_path) == best_path(tmp_path) == tmp_path / "best.ckpt"
    assert module.weight is weight
    assert torch.equal(module.weight, source.weight)


def test_the_manifest_lists_the_best_first(tmp_path):
    scores = {str(tmp_path / f"{i}.ckpt"): torch.tensor(float(i)) for i in range(3)}
    for mode, order in (("max", [2, 1, 0]), ("min", [0, 1, 2])):
        write_manifest(str(tmp_path), "val/loss", mode, scores, {path: [3, 30] for path in scores})
        manifest = json.loads((tmp_path / "best.json").read_text())
        assert [entry["path"] for entry in manifest["top_k"]] == [f"{i}.ckpt" for i in order]
        assert manifest["best"] == f"{order[0]}.ckpt"
        assert manifest["top_k"][0] == {"path": f"{order[0]}.ckpt", "score": order[0], "epoch": 3, "step": 30}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_without_manifest_is_an_error_that_names_where_one_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold a best.json"):
        best_path(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    save(tmp_path / "run" / "checkpoints", {})
    with pytest.raises(FileNotFoundError, match=r"There is one in: .*run/checkpoints"):
        best_path(tmp_path)


def test_a_missing_best_file_is_an_error_that_lists_the_others(tmp_path):
    save(tmp_path, {})
    (tmp_path / "best.ckpt").rename(tmp_path / "other.ckpt")
    with pytest.raises(FileNotFoundError, match=r"best.ckpt.* must exist. Checkpoints that are there: other.ckpt"):
        load_best(nn.Linear(3, 2), tmp_path)


def test_a_damaged_manifest(tmp_path):
    for text in ("", "{}", "[1]", '{"best": '):
        (tmp_path / "best.json").write_text(text)
        with pytest.raises(ValueError, match="must be a manifest written by `BestCheckpoint`"):
            best_path(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file(tmp_path, share):
    save(tmp_path, {"state_dict": nn.Linear(300, 200).state_dict()})
    content = (tmp_path / "best.ckpt").read_bytes()
    (tmp_path / "best.ckpt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"best.ckpt` must be .*truncated"):
        load_best(nn.Linear(300, 200), tmp_path)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    save(tmp_path, {"state_dict": nn.Linear(3, 2).state_dict(), "extra": RunsCode()})
    with pytest.raises(ValueError, match=r"got .*pathlib.*, which would run code.*save_hyperparameters\(ignore="):
        load_best(nn.Linear(3, 2), tmp_path)
    assert not pathlib.Path("was_run").exists()


@pytest.mark.parametrize("other", [nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 2)), nn.Linear(3, 2, bias=False)])
def test_another_architecture_is_an_error_and_leaves_the_module_as_it_was(tmp_path, other):
    save(tmp_path, {"state_dict": nn.Linear(3, 2).state_dict()})
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"must have the architecture that .*best.ckpt was saved from"):
        load_best(other, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [1, 2], {"state_dict": {}}])
def test_a_file_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "file.ckpt")
    with pytest.raises(ValueError, match="must hold the weights of a model"):
        load_weights(tmp_path / "file.ckpt")


def test_a_plain_state_dict_is_read_too(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "file.pt")
    assert set(load_weights(tmp_path / "file.pt")) == {"weight", "bias"}


def test_a_module_that_saves_only_a_part_loads_only_that(tmp_path):
    class Part(nn.Linear):
        strict_loading = False

    save(tmp_path, {"state_dict": {"weight": torch.ones(2, 3)}})
    module = Part(3, 2)
    bias = module.bias.clone()
    load_best(module, tmp_path)
    assert torch.equal(module.weight, torch.ones(2, 3))
    assert torch.equal(module.bias, bias)


def test_swapped_arguments_and_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(TypeError, match="`module` must be the module to load into"):
        load_best(tmp_path, nn.Linear(3, 2))
    with pytest.raises(FileNotFoundError, match=r"`directory` must be a folder, got .*nowhere, which does not exist"):
        best_path(tmp_path / "nowhere")


class Net(nn.Module):
    def __init__(self, compiled):
        super().__init__()
        self.net = nn.Linear(3, 2)
        if compiled:
            self.net = torch.compile(self.net, backend="eager")


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_compiled_and_plain_modules_load_each_others_best(tmp_path, saved, loaded):
    source, module = Net(saved), Net(loaded)
    save(tmp_path, {"state_dict": source.state_dict()})
    load_best(module, tmp_path)
    assert torch.equal(module.net.weight, source.net.weight)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    save(tmp_path, {"state_dict": nn.Linear(3, 2).state_dict()}, "last.ckpt")
    with pytest.raises(FileNotFoundError, match=r"got the file .*last.ckpt. Give .* for the best, or load"):
        load_best(nn.Linear(3, 2), tmp_path / "last.ckpt")


def test_a_best_file_of_another_run_than_the_manifest_is_refused(tmp_path):
    module = nn.Linear(3, 2)
    save(tmp_path, {"state_dict": module.state_dict(), "callbacks": {"BestCheckpoint": {RUN: "other"}}})
    manifest = json.loads((tmp_path / "best.json").read_text())
    for run, fits in (("other", True), ("mine", False)):
        (tmp_path / "best.json").write_text(json.dumps(manifest | {RUN: run}))
        with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="another run has put in its place"):
            load_best(module, tmp_path)

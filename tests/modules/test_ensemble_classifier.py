"""A finished ensemble: the explicit average, its scores, and everything that a plain module can."""

import copy
import pickle

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_trainingkit import EnsembleClassifier
from tests.toy import ToyModule, difference, toy_data, toy_loaders, toy_trainer


def make_members():
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        members.append(ToyModule().eval())
        members[-1].net[1].running_mean.normal_()
    return members


@pytest.fixture
def members():
    return make_members()


@pytest.fixture
def x():
    return toy_data().tensors[0]


def explicit(members, x, weights=(1 / 3, 1 / 3, 1 / 3)):
    with torch.no_grad():
        return sum(weight * member(x).softmax(1) for member, weight in zip(members, weights, strict=True)).log()


def test_it_is_the_average_of_its_members_in_eval_mode(members, x):
    ensemble = EnsembleClassifier(members, 2).train()
    torch.testing.assert_close(ensemble(x), explicit(members, x), rtol=0, atol=1e-6)
    weighted = EnsembleClassifier(members, 2, weights=[0.5, 0.0, 0.5])
    torch.testing.assert_close(weighted(x), explicit(members, x, (0.5, 0, 0.5)), rtol=0, atol=1e-6)
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    mixed = EnsembleClassifier([members[0], other], 2, average="logits")
    with torch.no_grad():
        logits = (members[0](x).log_softmax(1) + other(x).log_softmax(1)) / 2
    torch.testing.assert_close(mixed(x), logits.log_softmax(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_it_logs_the_scores_of_the_average_and_of_the_mean_member(members, x, stage):
    y = toy_data().tensors[1]
    found = getattr(toy_trainer(), stage)(EnsembleClassifier(members, 2), toy_loaders()[1], verbose=False)[0]
    prefix = "test" if stage == "test" else "val"
    mean, alone = explicit(members, x), [member(x).detach().log_softmax(1) for member in members]
    loss = nn.functional.nll_loss
    assert found == pytest.approx(
        {
            f"{prefix}/acc": (mean.argmax(1) == y).double().mean().item(),
            f"{prefix}/loss": loss(mean, y).item(),
            f"{prefix}/ece": multiclass_calibration_error(mean.exp(), y, 2).item(),
            f"{prefix}/acc_member": sum((each.argmax(1) == y).double().mean().item() for each in alone) / 3,
            f"{prefix}/loss_member": sum(loss(each, y).item() for each in alone) / 3,
            f"{prefix}/ece_member": sum(multiclass_calibration_error(each.exp(), y, 2).item() for each in alone) / 3,
            f"{prefix}/disagreement": sum(
                (alone[i].argmax(1) != alone[j].argmax(1)).double().mean().item() for i, j in ((0, 1), (0, 2), (1, 2))
            )
            / 3,
        },
        abs=1e-6,
    )


def test_predictions_are_probabilities_and_a_second_test_begins_anew(members, x):
    ensemble, trainer = EnsembleClassifier(members, 2), toy_trainer()
    said = torch.cat(trainer.predict(ensemble, DataLoader(toy_data(), batch_size=16)))
    torch.testing.assert_close(said, explicit(members, x).exp(), rtol=0, atol=1e-6)
    first, second = (trainer.test(ensemble, toy_loaders()[1], verbose=False) for _ in range(2))
    assert first == second


def test_it_is_saved_loaded_pickled_and_exported_with_the_same_numbers(members, x, tmp_path):
    ensemble = EnsembleClassifier(members, 2, weights=[0.5, 0.25, 0.25]).eval()
    expected = ensemble(x).detach()
    trainer = toy_trainer()
    trainer.test(ensemble, toy_loaders()[1], verbose=False)
    trainer.save_checkpoint(tmp_path / "ensemble.ckpt")
    untrained = [ToyModule() for _ in members]
    loaded = EnsembleClassifier.load_from_checkpoint(tmp_path / "ensemble.ckpt", members=untrained, weights_only=True)
    assert torch.equal(loaded(x), expected)
    again = EnsembleClassifier([ToyModule() for _ in members], 2, weights=[0.5, 0.25, 0.25])
    again.load_state_dict(ensemble.state_dict())
    for other in (again, pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        assert torch.equal(other(x), expected)
    nets = EnsembleClassifier([member.net for member in members], 2, weights=[0.5, 0.25, 0.25]).eval()
    exported = torch.export.export(nets, (x,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=2)}}).module()
    torch.testing.assert_close(exported(x[:7]), expected[:7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", [None, "net"])
def test_it_is_made_of_checkpoints(members, x, target):
    for number, member in enumerate(members):
        torch.save({"state_dict": member.state_dict()}, f"{number}.ckpt")
    module = ToyModule()
    before = copy.deepcopy(module.state_dict())
    ensemble = EnsembleClassifier.from_checkpoints("*.ckpt", module, 2, target=target)
    torch.testing.assert_close(ensemble(x), explicit(members, x), rtol=0, atol=1e-6)
    assert difference(module.state_dict(), before) == 0


def test_checkpoints_of_a_module_that_is_compiled(members, x):
    for number, member in enumerate(members):
        torch.save({"state_dict": member.state_dict()}, f"{number}.ckpt")
    wrapped, inside = torch.compile(ToyModule(), backend="eager"), ToyModule()
    inside.net = torch.compile(inside.net, backend="eager")
    for module in (wrapped, inside):
        ensemble = EnsembleClassifier.from_checkpoints("*.ckpt", module, 2)
        torch.testing.assert_close(ensemble(x), explicit(members, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("error", "arguments", "text"),
    [
        (ValueError, ([], 2), "`members` must hold at least one module"),
        (TypeError, (["a.ckpt"], 2), "`from_checkpoints` takes files"),
        (ValueError, ([nn.Identity()], 1), "`num_classes` must be at least 2"),
    ],
)
def test_bad_members(error, arguments, text):
    with pytest.raises(error, match=text):
        EnsembleClassifier(*arguments)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": [0.5, 0.5]}, "3 numbers"),
        ({"weights": [0.5, 0.5, 0.5]}, "sum to 1"),
        ({"weights": "greedy"}, "must be 'uniform' or numbers"),
        ({"average": "median"}, "`average` must be one of"),
    ],
)
def test_bad_settings(members, options, text):
    with pytest.raises(ValueError, match=text):
        EnsembleClassifier(members, 2, **options)


def test_other_class_counts_and_bad_labels_are_errors_in_the_first_batch(members):
    ensemble = EnsembleClassifier([members[0], nn.Sequential(nn.Flatten(), nn.Linear(16, 3))], 2)
    with pytest.raises(ValueError, match=r"got \(16, 3\) from member 1, Sequential"):
        toy_trainer().test(ensemble, toy_loaders()[1], verbose=False)
    x, y = toy_data().tensors
    with pytest.raises(ValueError, match="got labels from"):
        toy_trainer().test(
            EnsembleClassifier(members, 2), DataLoader(TensorDataset(x, y + 1), batch_size=16), verbose=False
        )


def test_one_member_is_an_ensemble_too(members, x):
    ensemble = EnsembleClassifier(members[:1], 2)
    found = toy_trainer().test(ensemble, toy_loaders()[1], verbose=False)[0]
    assert found["test/acc"] == pytest.approx(found["test/acc_member"])
    assert [row["passes"] for row in ensemble.reports["test"].rows()] == [1]


def test_it_is_not_fitted(members):
    with pytest.raises(ValueError, match="must not be fitted"):
        toy_trainer().fit(Fitted(members, 2), *toy_loaders())


class Fitted(EnsembleClassifier):
    def training_step(self, batch, batch_idx):
        raise AssertionError

    def configure_optimizers(self):
        raise AssertionError


def test_a_fit_without_a_subclass_is_lightnings_error(members):
    with pytest.raises(L.fabric.utilities.exceptions.MisconfigurationException, match="training_step"):
        toy_trainer().fit(EnsembleClassifier(members, 2), *toy_loaders())


@pytest.mark.parametrize("options", [{"vectorize": True}, {"offload": True}])
def test_one_forward_and_members_in_turn_give_the_same(members, x, options):
    ensemble = EnsembleClassifier([member.net for member in members], 2, weights=[0.5, 0.25, 0.25], **options).eval()
    expected = explicit([member.net for member in members], x, (0.5, 0.25, 0.25))
    for _ in range(2):
        torch.testing.assert_close(ensemble(x), expected, rtol=0, atol=1e-6)
    for other in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        assert torch.equal(other(x), ensemble(x))
    exported = torch.export.export(ensemble, (x,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=2)}}).module()
    torch.testing.assert_close(exported(x[:7]), expected[:7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"offload": True}])
def test_three_tests_give_the_same_to_the_last_bit(members, options):
    x = toy_data().tensors[0]
    batches = DataLoader([x[:16], x[:5], x[3:24], x[:16]], batch_size=None)
    ensemble = EnsembleClassifier([member.net for member in members], 2, **options)
    runs = [torch.cat(toy_trainer().predict(ensemble, batches)) for _ in range(3)]
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_one_forward_sees_weights_that_were_loaded_between_calls_and_stages(members, x):
    ensemble, trainer = EnsembleClassifier([member.net for member in members], 2, vectorize=True), toy_trainer()
    first = trainer.test(ensemble, toy_loaders()[1], verbose=False)
    ensemble.members[0].load_state_dict(members[1].net.state_dict())
    with torch.no_grad():
        ensemble.members[1][-1].bias.data += 1  # no version of the tensor tells of it
    expected = explicit([members[1].net, ensemble.members[1], members[2].net], x)
    torch.testing.assert_close(ensemble(x), expected, rtol=0, atol=1e-6)
    assert trainer.test(ensemble, toy_loaders()[1], verbose=False) != first


def test_members_that_can_not_run_as_one_forward_are_an_error(members):
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match="`vectorize` must be False for these members, got True: they have several"):
        toy_trainer().test(EnsembleClassifier([members[0], other], 2, vectorize=True), toy_loaders()[1], verbose=False)
    with pytest.raises(ValueError, match="`vectorize` must be False beside offload"):
        EnsembleClassifier(members, 2, vectorize=True, offload=True)


def test_offloaded_members_stay_where_they_are_but_for_their_turn():
    nets, devices = [nn.Sequential(nn.Flatten(), nn.Linear(16, 2)) for _ in range(2)], []
    for net in nets:
        net.register_forward_hook(lambda *_: devices.append([each[1].weight.device.type for each in nets]))
    ensemble = EnsembleClassifier(nets, 2, offload=True)
    before = [(id(each), each.data_ptr()) for each in ensemble.members.parameters()]
    ensemble.to("meta")
    assert {each.device.type for each in ensemble.reports.buffers()} <= {"meta"}
    for _ in range(2):
        assert ensemble(torch.empty(3, 1, 4, 4, device="meta")).device.type == "meta"
    assert devices == [["meta", "cpu"], ["cpu", "meta"]] * 2
    assert [(id(each), each.data_ptr()) for each in ensemble.members.parameters()] == before
    ensemble.half()  # a cast is no move
    assert {each.dtype for each in ensemble.members.parameters()} == {torch.float16}


class Hungry(nn.Linear):
    def forward(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def _apply(self, fn, recurse=True):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_out_of_memory_hints_at_offload():
    ensemble = EnsembleClassifier([Hungry(16, 2) for _ in range(2)], 2)
    for run in (lambda: ensemble.to("meta"), lambda: ensemble(torch.rand(2, 16))):
        with pytest.raises(torch.OutOfMemoryError, match=r"`members` must fit on the device together.*`offload=True`"):
            run()
    ensemble = EnsembleClassifier([Hungry(16, 2) for _ in range(2)], 2, offload=True)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory.$"):
        ensemble(torch.rand(2, 16))

"""What the averaging callbacks share: where the average stands, for how long, and what is left when it is gone."""

import copy
import json
import logging
import signal
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lightning_trainingkit.callbacks.averaging.augmentation import TestTimeAugmentation
from lightning_trainingkit.callbacks.transfer.transfer_learning import TransferLearning
from tests import process
from tests.toy import ToyModule, toy_data, toy_loaders, toy_trainer

FLIP = {"views": "flip", "target": "net"}
TEN = ["rot90", "rot180", "rot270", "hflip", "vflip", "shift(1, 0)", "shift(-1, 0)", "shift(0, 1)", "shift(0, -1)"]
TEN = [["identity", *TEN]]


def loader(size=20):
    return DataLoader(toy_data(size), 8)


class Observed(ToyModule):
    """Notes how often its net is passed through in each batch, and fails when it is told to."""

    def __init__(self, fail_at=None, error=RuntimeError):
        torch.manual_seed(0)
        super().__init__(lr=0.01)
        self.fail_at, self.error = fail_at, error
        self.accuracy = MulticlassAccuracy(2, average="micro")
        self.passes, self.batches = [], []
        self.net[0].register_forward_pre_hook(lambda *_: self.passes.append(self.stage()))

    def stage(self):
        stage = self.trainer.state.stage
        return stage.value if stage else None

    def step(self, batch, batch_idx):
        self.batches.append(self.stage())
        if self.fail_at is not None and batch_idx >= self.fail_at:
            self.call(batch[0])
            raise self.error("in mid-test")
        return self.call(batch[0])

    def call(self, x):
        return self.net(x)

    def validation_step(self, batch, batch_idx):
        logits = self.step(batch, batch_idx)
        self.log("val/loss", cross_entropy(logits, batch[1]))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        logits = self.step(batch, batch_idx)
        self.accuracy(logits, batch[1])
        self.log("test/acc", self.accuracy, on_step=True, on_epoch=True)

    def predict_step(self, batch, batch_idx):
        return self.step(batch, batch_idx)


def condition(module):
    """What must be as it was: of every submodule its own dict, flags and hooks, and the weights."""
    kept = {name: {**vars(each)} for name, each in module.named_modules() if not name.startswith("accuracy")}
    for each in kept.values():
        for changing in ("passes", "batches", "_trainer", "_current_fx_name", "prepare_data_per_node"):
            each.pop(changing, None)
    return kept, {name: value.clone() for name, value in module.net.state_dict().items()}


def assert_as_found(module, before):
    kept, weights = condition(module)
    assert kept.keys() == before[0].keys()
    for name, each in kept.items():
        assert each.keys() == before[0][name].keys()
        assert {
            key for key in each if each[key] is not before[0][name][key] and each[key] != before[0][name][key]
        } == set()
    torch.testing.assert_close(weights, before[1], rtol=0, atol=0)


def count(module, stage):
    return module.passes.count(stage) / max(1, module.batches.count(stage))


class Through(Observed):
    """Calls its own forward."""

    def call(self, x):
        return self(x)


@pytest.mark.parametrize("target", [None, "net"])
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_averages_in_the_stages_asked_for_and_leaves_no_trace(stage, target):
    others = {"validate", "test", "predict"} - {stage}
    for stages, expected in ((stage, 10), (["validate", "test", "predict"], 10), (tuple(others), 1)):
        module = Through()
        before = condition(module)
        trainer = toy_trainer(TestTimeAugmentation(TEN, target=target, stages=stages))
        getattr(trainer, stage)(module, loader(), **({} if stage == "predict" else {"verbose": False}))
        assert count(module, stage) == expected
        assert_as_found(module, before)


def test_validation_in_a_fit_is_averaged_on_request_but_not_the_sanity_check(tmp_path):
    module = Observed()
    before = copy.deepcopy(module.net.state_dict())
    callback = TestTimeAugmentation(TEN, target="net", stages=("validate",), early_exit=True)
    trainer = toy_trainer(callback, num_sanity_val_steps=1)
    trainer.fit(module, toy_loaders()[0], loader())
    assert count(module, "sanity_check") == 1
    assert 6 <= count(module, "validate") <= 10
    assert module.batches.count("validate") == 2 * 3
    assert 0 <= trainer.callback_metrics["val/passes_saved"] <= 0.4
    assert "forward" not in vars(module.net)
    assert any((module.net.state_dict()[name] != value).any() for name, value in before.items())
    trainer.test(module, loader(), verbose=False)
    assert count(module, "test") == 1


def test_a_fit_is_not_changed_by_averaging_its_validation():
    ends = []
    for callbacks in ([], [TestTimeAugmentation("flip", target="net", stages="validate")]):
        module = Observed()
        L.seed_everything(1, verbose=False)
        toy_trainer(*callbacks).fit(module, toy_loaders()[0], loader())
        ends.append(module.net.state_dict())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


@pytest.mark.parametrize("fail_at", [0, 1])
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_raises_leaves_all_as_found(fail_at, stage, error):
    module = Observed(fail_at, error).train()
    module.net[1].eval()
    before = condition(module)
    trainer = toy_trainer(TestTimeAugmentation("flip", target="net", stages=["validate", "test", "predict"]))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        getattr(trainer, stage)(module, loader())
    signal.signal(signal.SIGINT, handler)
    assert "forward" not in vars(module.net)
    module.fail_at, module.passes, module.batches = None, [], []
    trainer = toy_trainer(*trainer.callbacks[:1])
    trainer.predict(module, loader())
    assert count(module, "predict") == 2
    assert "forward" not in vars(module.net)
    torch.testing.assert_close(module.net.state_dict(), before[1], rtol=0, atol=0)


def test_modes_come_back_after_a_test():
    module = Observed()
    module.net.train()
    module.net[1].eval()
    before = {name: each.training for name, each in module.named_modules()}
    toy_trainer(TestTimeAugmentation(**FLIP)).test(module, loader(), verbose=False)
    assert {name: each.training for name, each in module.named_modules()} == before


@pytest.mark.parametrize("target", [None, "net"])
def test_a_forward_of_the_users_own_is_called_and_put_back(target):
    module = Through()
    place = module if target is None else module.net
    original = place.forward
    place.forward = mine = lambda x: 2 * original(x)
    trainer = toy_trainer(TestTimeAugmentation("flip", target=target))
    found = torch.cat(trainer.predict(module, loader()))
    assert vars(place)["forward"] is mine
    x = toy_data(20).tensors[0]
    with torch.no_grad():
        expected = sum(module.eval()(view).softmax(1) for view in (x, x.flip(-1))).div(2).log()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    module.fail_at = 1
    with pytest.raises(RuntimeError, match="mid-test"):
        trainer.predict(module, loader())
    assert vars(place)["forward"] is mine


def test_second_test_is_that_of_the_first():
    module = Observed()
    trainer = toy_trainer(TestTimeAugmentation(**FLIP))
    results = [trainer.test(module, loader(), verbose=False) for _ in range(2)]
    assert results[0] == results[1]
    assert count(module, "test") == 2


def test_several_callbacks_share_one_place_and_one_setting():
    with pytest.raises(ValueError, match=r"`target` must get one TestTimeAugmentation, got two for net. Make them one"):
        toy_trainer(TestTimeAugmentation(**FLIP), TestTimeAugmentation(TEN, target="net")).test(
            module := Observed(), loader(), verbose=False
        )
    assert "forward" not in vars(module.net)


class Doubles(TestTimeAugmentation):
    """Another source of passes beside the views: members, all of them the module itself."""

    def _source(self, trainer, pl_module, module):
        return self

    kind = "members"
    names = ("one", "two", "three")
    weights = (0.2, 0.3, 0.5)

    def around(self, index, call):
        return call


@pytest.mark.parametrize("first", [True, False])
def test_passes_of_several_callbacks_multiply_in_any_order(first):
    module = Observed()
    callbacks = [TestTimeAugmentation(**FLIP, max_batch=4), Doubles(target="net", early_exit=True, max_batch=6)]
    trainer = toy_trainer(*callbacks[:: 1 if first else -1])
    (metrics,) = trainer.test(module, loader(), verbose=False)
    assert callbacks[0].passes_per_sample == callbacks[1].passes_per_sample
    assert metrics["test/passes_saved"] == pytest.approx(1 - callbacks[0].passes_per_sample / 6)
    assert callbacks[0].passes_per_sample > 3
    assert "forward" not in vars(module.net)


def test_averages_that_differ_are_refused():
    callbacks = [TestTimeAugmentation(**FLIP), Doubles(target="net", average="votes")]
    message = "`average` must be the same for all callbacks of net, got 'probabilities' from .*, 'votes' from Doubles"
    module = Observed()
    with pytest.raises(ValueError, match=message):
        toy_trainer(*callbacks).test(module, loader(), verbose=False)
    assert "forward" not in vars(module.net)


class Aside(Observed):
    """Has a net that no step calls."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(1, 2)
        self.spent = 0

    def test_step(self, batch, batch_idx, dataloader_idx):
        super().test_step(batch, batch_idx, dataloader_idx)
        self.spent += 1

    def predict_step(self, batch):
        return self.net(batch[0])


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_target_that_is_never_called_is_told_with_those_that_there_are(stage):
    module = Aside()
    before = condition(module)
    callback = TestTimeAugmentation("flip", target="other")
    with pytest.raises(
        ValueError, match=rf"must be called by {stage}_step, got 'other', .* There are .*net, net\.0, net\.1"
    ):
        getattr(toy_trainer(callback), stage)(module, [loader(), loader()] if stage == "test" else loader())
    assert "forward" not in vars(module.other)
    assert all(not each._forward_pre_hooks or name == "net.0" for name, each in module.named_modules())
    torch.testing.assert_close(module.net.state_dict(), before[1], rtol=0, atol=0)
    callback = TestTimeAugmentation(**FLIP)  # nothing is left that would disturb the next one
    toy_trainer(callback).test(module, [loader(), loader()], verbose=False)
    assert callback.passes_per_sample == 2


def test_own_forward_that_is_never_called():
    class Direct(Observed):
        def test_step(self, batch, batch_idx):
            return self.net(batch[0]).sum()

    with pytest.raises(ValueError, match="must be called by test_step, got the module's own forward, which the first"):
        toy_trainer(TestTimeAugmentation("flip")).test(Direct(), loader(), verbose=False)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nett", "must name a submodule of Observed, got 'nett', which matches none. Nearest names: net"),
        ("head", "got 'head', which matches none. Nearest names: .*net.0, net.1"),
    ],
)
def test_target_that_does_not_exist(target, message):
    with pytest.raises(ValueError, match=message):
        toy_trainer(TestTimeAugmentation("flip", target=target)).test(Observed(), loader(), verbose=False)


def test_module_without_a_forward_must_name_its_target():
    class Bare(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

        def test_step(self, batch, batch_idx):
            return self.net(batch)

    with pytest.raises(ValueError, match=r"with a forward, which Bare has not, got None\. Its submodules: net"):
        toy_trainer(TestTimeAugmentation("flip")).test(Bare(), DataLoader(torch.zeros(2, 2)), verbose=False)


def test_target_by_any_of_its_names():
    class Shared(Observed):
        def __init__(self):
            super().__init__()
            self.backbone = self.net

    module = Shared()
    toy_trainer(TestTimeAugmentation("flip", target="backbone")).test(module, loader(), verbose=False)
    assert count(module, "test") == 2


def test_forward_that_calls_itself_is_one_pass():
    class Again(ToyModule):
        depth = 0

        def forward(self, x):
            self.depth += 1
            return self(x[:, :, :, :]) if self.depth % 2 else self.net(x)

    module = Again()
    found = toy_trainer(TestTimeAugmentation("flip")).predict(module, loader())
    x, net = toy_data(20).tensors[0], module.net.eval()
    with torch.no_grad():
        expected = sum(net(view).softmax(1) for view in (x, x.flip(-1))).div(2).log()
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-6)
    assert module.depth == 3 * 2 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": "fit"}, "`stages` must be some of validate, test, predict, got 'fit'"),
        ({"stages": []}, "`stages` must be some of"),
        ({"stages": 3}, "`stages` must be some of .*, got 3"),
        ({"stages": [["test"]]}, "`stages` must be some of"),
        ({"average": "median"}, "`average` must be one of 'probabilities'"),
        ({"average": "logits", "early_exit": True}, "`early_exit` must be False with average='logits'"),
        ({"max_batch": 0}, "`max_batch` must be at least 1"),
        ({"views": "tencrop(3)"}, "Did you mean ten_crop"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        TestTimeAugmentation(**arguments)


def test_a_target_is_a_name():
    with pytest.raises(TypeError, match=r"`target` must be the name of a submodule, got Linear\. Write it like 'net'"):
        TestTimeAugmentation(target=nn.Linear(1, 1))


def test_what_was_saved_is_said_once(caplog):
    callback = TestTimeAugmentation(TEN, target="net", early_exit=True)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        toy_trainer(callback).predict(Observed(), loader())
    assert caplog.text.count("of 10 passes") == 1
    assert f"Early exit: {callback.passes_per_sample:.2f} of 10 passes" in caplog.text


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_ranks")
    process.run_ranks(Path(__file__).with_name("averaging_on_two_ranks.py"), folder, folder=folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_ranks_with_different_data_exit_early_each_by_itself_and_log_the_same(found):
    assert found[0]["logged"] == found[1]["logged"]
    assert found[0]["passes"] == found[1]["passes"]
    assert found[0]["made"] != found[1]["made"]
    made = sum(each["made"] for each in found)
    assert found[0]["passes"] == pytest.approx(made / sum(each["samples"] for each in found))
    assert found[0]["logged"]["test/passes_saved"] == pytest.approx(1 - found[0]["passes"] / 10)


def test_ranks_find_the_right_average(found):
    assert max(each["error"] for each in found) < 1e-6


def test_forward_that_ddp_left_in_the_module_is_put_back(found):
    assert all(each["left_by_ddp"] for each in found)
    assert all(each["put_back"] for each in found)


def test_ranks_validate_on_averages_in_a_fit(found):
    assert all(each["validated"] == [2] * 2 for each in found)


def test_target_that_no_rank_calls_raises_on_all(found):
    assert all("There are " in each["not_called"] for each in found)


@pytest.mark.parametrize("averages_first", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_under_a_feature_cache_is_put_back_when_validation_raises(averages_first, error):
    class Cached(ToyModule):
        fails = True

        def validation_step(self, batch, batch_idx):
            if self.fails and not self.trainer.sanity_checking:
                raise error("in mid-validation")
            super().validation_step(batch, batch_idx)

    module, handler = Cached(), signal.getsignal(signal.SIGINT)
    module.net[4] = nn.Identity()  # no dropout before the head
    callbacks = [
        TransferLearning([{"train": "head"}], cache_features=True, verbose=False),
        TestTimeAugmentation("flip", target="net", stages="validate"),
    ]
    trainer = toy_trainer(*callbacks[:: -1 if averages_first else 1], max_epochs=1)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        trainer.fit(module, DataLoader(toy_data(), 8), loader())
    signal.signal(signal.SIGINT, handler)
    assert all("forward" not in vars(each) for each in module.modules())
    module.fails = False
    assert toy_trainer().validate(module, loader(), verbose=False)

"""What a user finds in the logs of ActivationStats, and in the module after it."""

import json
import logging
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit import ActivationStats
from tests import process
from tests.toy import ToyModule, toy_loaders, toy_trainer


class Memory(Logger):
    """Keeps what it is given."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if any(name.startswith("activations/") for name in metrics):
            self.rows.append((step, metrics))


class Spy(ToyModule):
    """Keeps the outputs of its ReLU in training."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        y = self.net[:3](batch[0])
        self.seen.append(y.detach().clone())
        return cross_entropy(self.net[3:](y), batch[1])


def fit(callback, module=None, **options):
    torch.manual_seed(0)
    memory, module = Memory(), module or Spy()
    trainer = toy_trainer(callback, **{"logger": memory, "max_epochs": 2} | options)
    trainer.fit(module, *toy_loaders())
    return memory.rows, module, trainer


def test_every_sampled_step_is_logged_with_the_values_of_its_batch():
    rows, module, _ = fit(ActivationStats(every_n_steps=3, bins=8))
    assert [step for step, _ in rows] == [1, 4, 7]  # of 8 steps, with a sanity check and two validations between them
    for step, metrics in rows:
        y = module.seen[step - 1]
        expected = {"mean": y.mean(), "std": y.std(correction=0), "min": y.min(), "max": y.max()}
        expected["positive"] = (y > 0).float().mean()
        for name, value in expected.items():
            assert metrics[f"activations/net.2/{name}"] == pytest.approx(value.item(), rel=1e-5)
    names = ["mean", "std", "min", "max", "dead", "positive", "between_images"]
    assert list(rows[0][1]) == [f"activations/net.2/{name}" for name in names]


def test_dead_units_are_silent_in_all_the_sampled_steps():
    rows, module, _ = fit(ActivationStats(every_n_steps=1), logger=(memory := Memory()), max_epochs=3)
    assert not rows
    alive = torch.stack([(y != 0).any(0).any(-1).any(-1) for y in module.seen])
    for index, (_, metrics) in enumerate(memory.rows):
        expected = 1 - alive[max(0, index - 9) : index + 1].any(0).float().mean()
        assert metrics["activations/net.2/dead"] == pytest.approx(expected.item())


def test_a_step_of_several_batches_counts_them_all():
    callback = ActivationStats(every_n_steps=2)
    rows, module, _ = fit(callback, accumulate_grad_batches=2)
    assert [step for step, _ in rows] == [1, 3]
    y = torch.cat(module.seen[4:6])
    assert rows[1][1]["activations/net.2/mean"] == pytest.approx(y.mean().item())
    assert callback.summaries["net.2"].calls == 2


def test_manual_optimization_with_two_optimizers_is_sampled_too():
    class Manual(ToyModule):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(cross_entropy(self(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(each.parameters(), lr=0.1) for each in (self.net[0], self.net[5])]

    rows, *_ = fit(callback := ActivationStats(every_n_steps=3), Manual())
    assert [step for step, _ in rows] == [2, 6, 10, 14]  # each batch takes two steps
    assert callback.summaries["net.2"].calls == 2


def test_training_is_what_it_is_without_it():
    weights = [fit(*callback)[1].state_dict() for callback in ([ActivationStats(every_n_steps=1)], [L.Callback()])]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_wandb_gets_histograms_and_other_loggers_scalars(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb, csv = WandbLogger(save_dir=tmp_path, mode="offline"), CSVLogger(tmp_path)
    logged = []
    monkeypatch.setattr(type(wandb.experiment), "log", lambda run, row, **kwargs: logged.append(row))
    callback = ActivationStats(every_n_steps=100, bins=8)
    fit(callback, logger=[wandb, csv])
    wandb.experiment.finish()
    (row,) = [row for row in logged if "activations/net.2/std" in row]
    assert row["trainer/global_step"] == 1
    histogram, summary = row["activations/net.2/histogram"], callback.summaries["net.2"]
    assert histogram.histogram == summary.counts
    assert histogram.bins == summary.edges
    header = Path(csv.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert "activations/net.2/std" in header
    assert "histogram" not in header


def test_a_resumed_fit_samples_the_same_steps(tmp_path):
    def steps(epochs, ckpt_path=None):
        memory = Memory()
        trainer = toy_trainer(ActivationStats(every_n_steps=3), logger=memory, max_epochs=epochs)
        trainer.fit(ToyModule(), *toy_loaders(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return [step for step, _ in memory.rows]

    assert steps(2) == [1, 4, 7]
    assert steps(4, tmp_path / "last.ckpt") == [10, 13, 16]


def test_a_second_fit_begins_with_its_first_step():
    callback = ActivationStats(every_n_steps=3)
    assert [[step for step, _ in fit(callback)[0]] for _ in range(2)] == [[1, 4, 7]] * 2


def test_layers_that_are_not_called_are_named_once(caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        module = Spy()
        module.unused = nn.ReLU()
        rows, *_ = fit(ActivationStats(every_n_steps=1), module)
    assert caplog.text.count("has no values of layers that were not called: unused.") == 1
    assert len(rows) == 8


def test_layers_made_in_configure_model_are_found():
    class Late(ToyModule):
        def __init__(self):
            super().__init__()
            self.net = None

        def configure_model(self):
            if self.net is None:
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 2))

    rows, *_ = fit(ActivationStats("net.2"), Late())
    assert "activations/net.2/saturated" in rows[0][1]


@pytest.mark.parametrize("late", [False, True])
def test_a_compiled_module_is_recorded_also_if_it_ran_before(late):
    torch.compiler.reset()
    module = ToyModule()
    module.compile(backend="eager", fullgraph=True)
    if late:
        module(torch.randn(8, 1, 4, 4))
    rows, *_ = fit(ActivationStats(every_n_steps=4), module)
    assert [step for step, _ in rows] == [1, 5]
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layers": "net.relu"}, r"`layers` must match a layer, got 'net.relu'.* Nearest names: .*net\.2"),
        ({"layers": ""}, "`layers` must hold at least one pattern"),
        ({"every_n_steps": 0}, "`every_n_steps` must be at least 1, got 0"),
        ({"bins": 0}, "`bins` must be at least 1, got 0"),
        ({"bins": 513}, "`bins` must be at most 512, got 513"),
    ],
)
def test_bad_input_is_refused_before_training(arguments, text):
    module = Spy()
    with pytest.raises(ValueError, match=text):
        fit(ActivationStats(**arguments), module)
    assert module.seen == []
    assert not any(each._forward_hooks for each in module.modules())


def test_two_are_refused():
    with pytest.raises(ValueError, match=r"must hold one ActivationStats, got 2\. Give one all patterns"):
        toy_trainer(ActivationStats(), ActivationStats("net.2")).fit(ToyModule(), *toy_loaders())


@pytest.mark.slow
def test_two_ranks_report_what_one_process_does(tmp_path):
    process.run_ranks(Path(__file__).with_name("activation_stats_ranks.py"), tmp_path, folder=tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["summaries"] == ranks[1]["summaries"]
    assert ranks[0]["counts"] == ranks[1]["counts"]
    assert [rank["logged"] for rank in ranks] == [2, 0]
    expected, found = ranks[0]["expected"], ranks[0]["summaries"]
    assert found.keys() == expected.keys() == {"relu", "only_on_rank_0"}
    for layer, values in expected.items():
        assert found[layer] == pytest.approx(values, rel=1e-6)

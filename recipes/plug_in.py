"""Plug in: add the kit's callbacks to a project without the kit, in Python and from a YAML file.

Expected: test accuracy on scikit-learn's digits: 99.4 % with the restored weights (epoch 15), 99.2 % with the last (20)
Cost:     7 s on 2 CPU cores, nothing to download
Command:  python recipes/plug_in.py            (the callbacks in Python)
          python recipes/plug_in.py --cli      (the same through LightningCLI and recipes/plug_in.yaml)
"""

import argparse
import importlib.util
import os
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import wandb_runs
from lightning_trainingkit.nn import load_weights, read_manifest

YAML = Path(__file__).with_suffix(".yaml")


# 1. The project, as in Lightning's own docs: a module, its own names of metrics, and a Trainer.
class LitClassifier(L.LightningModule):
    """A small convolutional net that uses nothing of the kit."""

    def __init__(self, channels: int = 1, num_classes: int = 10, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(64 * 4 * 4, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log ``val_loss`` and ``val_acc``."""
        self.evaluate(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log ``test_loss`` and ``test_acc``."""
        self.evaluate(batch, "test")

    def evaluate(self, batch: list[Tensor], stage: str) -> None:
        """Log the loss and the accuracy of a batch."""
        x, y = batch
        logits = self(x)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        self.log_dict({f"{stage}_loss": cross_entropy(logits, y), f"{stage}_acc": accuracy}, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


def main() -> None:
    """Train with the callbacks from Python or YAML, and show the scores of the last and the best weights."""
    parser = experiments.argument_parser("plug_in", __doc__)
    parser.add_argument("--epochs", type=int, default=60, help="at most (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="on each device (%(default)s)")
    parser.add_argument("--cli", action="store_true", help=f"through LightningCLI and {YAML.name}")
    args = parser.parse_args()
    start = time.perf_counter()
    experiments.quiet()
    folder = experiments.open_folder("plug_in", args.output, resume=args.resume)
    data = experiments.data_module(args.data, args.data_dir, batch_size=args.batch_size, seed=args.seed)

    # 2. The kit: a few lines among the Trainer's callbacks, here or in the file.
    trainer, model = (from_yaml if args.cli else from_python)(args, data, folder)

    # 3. Train, or resume the killed run. At the end EarlyStopping restores the best weights.
    checkpoints = folder / "checkpoints"
    trainer.fit(model, data, ckpt_path=experiments.newest_checkpoint(checkpoints) if args.resume else None)
    restored = {name: value.clone() for name, value in model.state_dict().items()}

    # 4. Scores of the last and the best weights.
    model.load_state_dict(load_weights(checkpoints / "last.ckpt"))
    last = score("last", trainer.current_epoch - 1, trainer, model, data)
    model.load_state_dict(restored)
    best = score("restored best", read_manifest(checkpoints)["top_k"][0]["epoch"], trainer, model, data)

    seconds = time.perf_counter() - start
    metrics = {**best, **{f"{name}_last": value for name, value in last.items()}}
    metrics = {name: value for name, value in metrics.items() if "/" in name}
    experiments.write_results(folder, vars(args), metrics, [best, last], seconds)
    experiments.print_table(
        f"{args.data}, callbacks from {YAML.name if args.cli else 'Python'}: "
        f"{trainer.current_epoch} epochs in {seconds:.0f} s",
        [best, last],
        f"Files: {folder}/results.json, {checkpoints} and, for W&B, {folder}/wandb (`wandb sync` uploads it)",
        f"Next:  python recipes/plug_in.py {'' if args.cli else '--cli'}    (the same numbers, the other way)",
    )


def from_python(args: argparse.Namespace, data: Any, folder: Path) -> tuple[L.Trainer, L.LightningModule]:
    """Make the Trainer and the module in Python. The lines with ``kit.`` add the kit."""
    L.seed_everything(args.seed, verbose=False)
    model = LitClassifier(channels=data.image_shape[0], num_classes=data.num_classes)
    callbacks = [
        kit.InitOverride("kaiming_normal", verbose=False),
        kit.EarlyStopping("val_loss", patience=5),
        kit.BestCheckpoint("val_loss", "min", dirpath=str(folder / "checkpoints"), save_last=True),
        kit.EpochSeed(args.seed),
        kit.ChannelsLast(),
        kit.CommandCenter(group="plug_in", best={"val_acc": "max"}),
    ]
    if args.wandb == "disabled":
        callbacks.pop()
    options = {
        "logger": False,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
    }  # CommandCenter adds W&B's logger
    return L.Trainer(**trainer_options(args, folder), **options, callbacks=callbacks), model


def from_yaml(args: argparse.Namespace, data: Any, folder: Path) -> tuple[L.Trainer, L.LightningModule]:
    """Make the Trainer and the module from the YAML file. The recipe's options replace values of the file."""
    if importlib.util.find_spec("jsonargparse") is None:
        raise ImportError("`--cli` needs jsonargparse. Run: pip install 'lightning-trainingkit[recipes]'.")
    from lightning.pytorch.cli import LightningCLI

    config = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    config["seed_everything"] = args.seed
    config["model"] |= {"channels": data.image_shape[0], "num_classes": data.num_classes}
    config["trainer"] |= trainer_options(args, folder)
    callbacks = {callback["class_path"].split(".")[-1]: callback for callback in config["trainer"]["callbacks"]}
    callbacks["BestCheckpoint"]["init_args"]["dirpath"] = str(folder / "checkpoints")
    callbacks["EpochSeed"]["init_args"]["seed"] = args.seed
    if args.wandb == "disabled":
        del callbacks["CommandCenter"]
    config["trainer"]["callbacks"] = list(callbacks.values())
    # The recipe's options are its own, not LightningCLI's.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    cli = LightningCLI(LitClassifier, args=config, run=False, save_config_kwargs={"overwrite": True})
    return cli.trainer, cli.model


def trainer_options(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Turn the recipe's options into Trainer arguments, and tell W&B through the environment."""
    os.environ |= {"WANDB_MODE": args.wandb, "WANDB_PROJECT": wandb_runs.project(args.data)}
    return {
        "max_epochs": args.epochs,
        "accelerator": args.accelerator,
        "devices": args.devices,
        "strategy": args.strategy,
        "precision": experiments.default_precision(args.data, args.precision, args.accelerator),
        "default_root_dir": str(folder),
    }


def score(
    name: str, epoch: int, trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule
) -> dict[str, Any]:
    """Make a row of the table: loss and accuracy of the current weights."""
    found = {**trainer.validate(model, data, verbose=False)[0], **trainer.test(model, data, verbose=False)[0]}
    return {"weights": name, "epoch": epoch, **{metric.replace("_", "/"): value for metric, value in found.items()}}


if __name__ == "__main__":
    main()

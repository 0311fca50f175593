"""Command center: a grid of twelve trainings with everything on, and one page that shows them all.

The lecture: "We develop command centers to visualize all our models training with different hyperparameters." The grid
has six learning rates and two dropout rates. The best training on validation is tested in four ways: plainly, with
test-time augmentation, with Monte-Carlo dropout, and in an ensemble with the next best. The page needs no account and
no network. The runs are W&B runs: `wandb sync` uploads them, and `trainingkit workspace` makes the same view there.

Expected: val/loss is lowest (0.08) at a learning rate of 0.01, and rises to 2.3 on both sides. The page's importance
          of the learning rate is 92 %, its correlation 0.07.
          Test accuracy: the best run 95.8 %, with shifts 98.3 %, three runs 97.5 %
Cost:     80 s on 2 CPU cores, nothing to download
Command:  python recipes/command_center.py
"""

import argparse
import time
import webbrowser
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torchvision.transforms import v2

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.dashboards.local import write_center
from lightning_trainingkit.experiments import at_least, comparison, wandb_runs

RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)
DROPOUT = (0.1, 0.3)


class Classifier(kit.ImageClassifier):
    """A small net with dropout before its last layer. The grid varies its hyperparameters."""

    def __init__(self, num_classes: int, shape: tuple[int, int, int], lr: float, dropout: float) -> None:
        net = kit.SmallResNet(num_classes, shape[0], width=16)
        net.head = nn.Sequential(nn.Dropout(dropout), net.head)  # type: ignore[assignment]
        super().__init__(net, num_classes, lr=lr)
        self.save_hyperparameters()
        self.move = v2.RandomCrop(shape[1:], padding=1, padding_mode="reflect")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Shift a batch by up to a pixel: test-time views help only if training has shown them."""
        x, target = batch
        return super().training_step((self.move(x), target), batch_idx)


def main() -> None:
    """Train the missing part of the grid, test the best training in four ways, and write the page."""
    parser = experiments.argument_parser("command_center", __doc__)
    parser.add_argument("--epochs", type=at_least(1), default=25, help="at most (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="of one rank (%(default)s)")
    parser.add_argument(
        "--members", type=at_least(2), default=3, help="of the grid's best, in the ensemble (%(default)s)"
    )
    parser.add_argument("--passes", type=at_least(1), default=20, help="of Monte-Carlo dropout (%(default)s)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    args = parser.parse_args()
    if args.members > len(RATES):
        parser.error(f"--members must be at most {len(RATES)}, the learning rates of the grid, got {args.members}.")
    if args.open and args.wandb == "disabled":
        parser.error("--open needs the page, and the page needs W&B's files: take --wandb offline.")
    start = time.perf_counter()
    experiments.quiet()
    try:
        data = experiments.data_module(args.data, args.data_dir, batch_size=args.batch_size, seed=args.seed)
        folder = experiments.open_folder("command_center", args.output, resume=args.resume)
        done = {name: experiments.finished_metrics(folder / "grid" / name, settings(args)) for name in grid()}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    data.prepare_data()
    data.setup()

    # 1. The grid: each fit is one run, named by its hyperparameters. --resume skips finished fits.
    scores = {name: done[name] or train(args, data, folder, name, *values) for name, values in grid().items()}

    # 2. The best on validation, in four ways on test: each way is a run in the same group, with its own job type.
    ranked = sorted(scores, key=lambda name: scores[name]["val/loss"])
    members = [str(folder / "grid" / name) for name in ranked[: args.members]]
    ways = {
        "eval": ("one view", []),
        "tta": ("shifts(1)", [kit.TestTimeAugmentation("shifts(1)")]),
        "mc-dropout": (f"{args.passes} masks", [kit.MonteCarloDropout(args.passes)]),
    }
    L.seed_everything(args.seed, verbose=False)  # for the masks
    module = Classifier(data.num_classes, data.image_shape, *grid()[ranked[0]])  # dropout is in no checkpoint's weights
    kit.load_best(module, members[0])
    tested = {}
    for job_type, (name, callbacks) in ways.items():
        predictions = comparison.predictions(experiments.new_trainer(args, folder, *callbacks), module, data)
        tested[job_type, name] = comparison.scores(*predictions)
    ensemble = kit.EnsembleClassifier.from_checkpoints(members, module, data.num_classes)
    (found,) = experiments.new_trainer(args, folder).test(
        ensemble, data, verbose=False
    )  # the scores of the mean member too
    tested["ensemble", f"best {args.members}"] = dict(found)
    for (job_type, name), values in tested.items():
        wandb_runs.record(args, folder, job_type, name, values, {"averaging": job_type})
    rows = [
        {"averaging": job_type, "what": name, **{key: values[key] for key in ("test/acc", "test/loss", "test/ece")}}
        for (job_type, name), values in tested.items()
    ]

    # 3. All runs on one page.
    page = folder / "dashboard.html"
    if args.wandb != "disabled":
        rank_zero_only(write_page)(page, folder, args.open)
    seconds = time.perf_counter() - start
    table = [{"run": name, **found} for name, found in scores.items()]
    metrics = {"test/acc": rows[0]["test/acc"], "test/loss": rows[0]["test/loss"], "best": ranked[0]}
    experiments.write_results(folder, vars(args), metrics, [*table, *rows], seconds)
    experiments.print_table(f"{args.data}: {len(scores)} trainings, {seconds:.0f} s", table)
    experiments.print_table(
        f"{ranked[0]}, the best on validation: one view of one model, and averages",
        rows,
        f"Files: {folder}/dashboard.html, {folder}/results.json, {folder}/grid/*/best.json",
        "Next:  python recipes/command_center.py --data fashion-mnist --epochs 3",
        "         if its data is absent: apt install dataset-fashion-mnist, or",
        "         python -c \"import torchvision; torchvision.datasets.FashionMNIST('data', download=True)\"",
        f"       trainingkit dashboard {folder} --serve --open    (beside a training: kept up to date)",
        *wandb_runs.center(args, folder),
    )


def write_page(page: Path, folder: Path, show: bool) -> None:
    """Write the command center, and open it if asked."""
    made = write_center(page, [folder])
    print(f"{page}: {made['counted']}")
    if show:
        webbrowser.open(page.resolve().as_uri())


def grid() -> dict[str, tuple[float, float]]:
    """Learning rate and dropout of each training, by its name."""
    return {f"lr={lr:g}, dropout={dropout:g}": (lr, dropout) for lr, dropout in product(RATES, DROPOUT)}


def train(args: argparse.Namespace, data: Any, root: Path, name: str, lr: float, dropout: float) -> dict[str, Any]:
    """Train one point of the grid, or resume its killed training, and test the best weights in the same run."""
    start = time.perf_counter()
    folder = root / "grid" / name
    L.seed_everything(args.seed, verbose=False)
    module = Classifier(data.num_classes, data.image_shape, lr, dropout)
    callbacks = [
        kit.InitOverride(verbose=False),
        kit.BestCheckpoint("val/loss", "min", dirpath=str(folder), save_last=True, restore=True),
        kit.EarlyStopping("val/loss", patience=6, restore_best=False),
        kit.EpochSeed(args.seed),
        kit.ChannelsLast(),
        LearningRateMonitor("step"),
    ]
    experiments.write_results(folder / "begun", settings(args), {}, [], 0.0)  # the only settings of a killed training
    with wandb_runs.recorded(args, root, name) as center:
        trainer = experiments.new_trainer(
            args, folder, *callbacks, *center, max_epochs=args.epochs, enable_checkpointing=True
        )
        trainer.fit(module, data, ckpt_path=experiments.newest_checkpoint(folder))
        found = dict(trainer.test(module, data, verbose=False)[0])  # in the run; a validation would be another point
    found |= experiments.new_trainer(args, folder).validate(module, data, verbose=False)[0]
    seconds = time.perf_counter() - start
    experiments.write_results(folder, settings(args), found, [], seconds)
    rank_zero_only(print)(f"{name}: val/loss {found['val/loss']:.4f}, {trainer.current_epoch} epochs, {seconds:.1f} s")
    trainer.strategy.barrier()
    return found


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Select the options that change a training of the grid."""
    others = ("output", "resume", "members", "passes", "wandb", "open", "data_dir")
    return {key: value for key, value in vars(args).items() if key not in others}


if __name__ == "__main__":
    main()

"""Test-time augmentation: what several views of each test image are worth to a model that is trained already.

Takes any checkpoint of a LightningModule whose `predict_step` returns probabilities. `--data` is split as the
checkpoint says that it was in training, so that no image is tested that was trained on.

Expected: on a member of recipes/ensemble.py, which learned from unmoved digits, every set of views does harm: flip -2.7
          +- 1.2 points, rotations -54 +- 3. On one of recipes/reproduce/ensembles_and_tta.py, which learned from moved
          digits, shifts(1) gains: +1.1 +- 0.8 points. Views help that training has shown to the model.
Cost:     10 s on 2 CPU cores, 70 s on busy ones, nothing to download
Command:  python recipes/ensemble.py && python recipes/test_time_augmentation.py
"""

import argparse
import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import comparison, wandb_runs
from lightning_trainingkit.functional import AVERAGES, make_views
from lightning_trainingkit.nn import explain_failure


def main() -> None:
    """Predict the test images with each set of views, in full and with an early exit, and compare with one view."""
    parser = experiments.argument_parser("test_time_augmentation", __doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="file, or folder with best.json (default: runs/ensemble's newest)"
    )
    parser.add_argument("--module", default="lightning_trainingkit.ImageClassifier", help="its class (%(default)s)")
    parser.add_argument("--target", help="submodule that returns the logits (default: the module itself)")
    views = (
        'set of views, may be repeated; composed ones as JSON: \'["shifts(1)", "flip"]\' (default: some for the size)'
    )
    parser.add_argument("--views", action="append", type=read_views, help=views)
    parser.add_argument("--average", choices=AVERAGES, default="probabilities", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="of one rank (%(default)s)")
    args = parser.parse_args()
    if args.resume:
        parser.error("--resume has no use here: nothing is trained.")
    start = time.perf_counter()
    experiments.quiet()

    # 1. A trained model, and the test images that it has not seen.
    try:
        checkpoint = find_checkpoint(args.checkpoint)
        module = find_class(args.module).load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
        if args.target is not None and args.target not in dict(module.named_modules()):
            raise ValueError(f"--target must name a submodule, got {args.target}. There are: {names(module)}.")
        data = find_data(args, checkpoint)
        folder = experiments.open_folder("test_time_augmentation", args.output)
    except (OSError, ValueError, TypeError) as error:
        parser.error(str(error))
    data.prepare_data()
    data.setup()
    sets = args.views or default_views(data.image_shape[1])

    # 2. One view, as always.
    predict(args, folder, module, data)  # the first call pays for what torch does once
    plain, targets, seconds = predict(args, folder, module, data)
    one = {"views": "one", "passes": 1, **comparison.scores(plain, targets), "seconds": seconds}
    rows = [{**one, **comparison.gain(plain, plain, targets)}]

    # 3. The same Trainer with the callback. With an early exit an image stops when its argmax is settled.
    for each in sets:
        full = kit.TestTimeAugmentation(each, target=args.target, average=args.average)
        averaged, _, seconds = predict(args, folder, module, data, full)
        row = {"views": name_of(each), "passes": len(make_views(each)), **comparison.scores(averaged, targets)}
        row |= {"seconds": seconds, **comparison.gain(averaged, plain, targets)}
        if args.average in ("probabilities", "votes"):
            exits = kit.TestTimeAugmentation(each, target=args.target, average=args.average, early_exit=True)
            early, _, seconds = predict(args, folder, module, data, exits)
            differs = (early.argmax(dim=1) != averaged.argmax(dim=1)).sum().item()
            row |= {"exit passes": exits.passes_per_sample, "exit seconds": seconds, "exit differs": differs}
        rows.append(row)

    for row in rows:
        wandb_runs.record(args, folder, "eval" if row is rows[0] else "tta", row["views"], row, {"views": row["views"]})
    metrics = {name: value for name, value in rows[0].items() if name.startswith("test/")}
    experiments.write_results(
        folder, vars(args) | {"checkpoint": checkpoint}, metrics, rows, time.perf_counter() - start
    )
    cells = [comparison.shown(row) for row in rows]
    cost = ("passes", "seconds", "exit passes", "exit seconds", "exit differs")
    experiments.print_table(
        f"{checkpoint}: {len(targets)} images to test",
        [{name: value for name, value in row.items() if name not in cost} for row in cells],
    )
    experiments.print_table(
        "What it costs, in full and with an early exit",
        [{name: row.get(name) for name in ("views", *cost)} for row in cells],
        "gain: over one view; negative is better for the loss. +-: 95 % interval over the test images, paired",
        "exit passes: mean number of passes of an image with an early exit; differs: images whose argmax it changed",
        *(f"{row['views']}: {comparison.verdict(row)}" for row in rows[1:]),
        "Of so many sets the best on test is best by luck, too: choose on validation images.",
        f"Files: {folder}/results.json",
        f"Next:  python recipes/test_time_augmentation.py --checkpoint {checkpoint} --average votes",
        *wandb_runs.center(args, folder),
    )


def predict(
    args: argparse.Namespace, folder: Path, module: L.LightningModule, data: Any, *callbacks: L.Callback
) -> tuple[Tensor, Tensor, float]:
    """Log-probabilities and targets of all test images, and the seconds that it took."""
    trainer = L.Trainer(
        accelerator=args.accelerator,
        devices=args.devices,
        strategy=args.strategy,
        precision=args.precision or "32-true",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    start = time.perf_counter()
    log_probabilities, targets = comparison.predictions(trainer, module, data)
    return log_probabilities, targets, time.perf_counter() - start


def read_views(text: str) -> Any:
    """A set of views by name, or JSON."""
    views = json.loads(text) if text.startswith("[") else text
    try:
        make_views(views)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return views


def default_views(size: int) -> list[Any]:
    """Sets that suit images of so many pixels a side."""
    crop = size - max(1, size // 8)
    sets: list[Any] = ["flip", f"shifts({max(1, size // 28)})", [f"shifts({max(1, size // 28)})", "flip"], "airbench"]
    return [*sets, f"five_crop({crop})", f"ten_crop({crop})", "rotations"]


def name_of(views: Any) -> str:
    """A set of views in a table."""
    return views if isinstance(views, str) else " x ".join(map(str, views))


def find_checkpoint(path: Path | None) -> Path:
    """The file itself, the best one in a folder, or the best of the newest ensemble member."""
    if path is None:
        manifests = Path("runs").glob("ensemble*/members/*/best.json")
        newest = max(manifests, key=lambda found: found.stat().st_mtime, default=None)
        if newest is None:
            raise FileNotFoundError(
                "--checkpoint must be given, got no runs/ensemble. Or run recipes/ensemble.py first."
            )
        path = newest.parent
    return kit.best_path(path) if path.is_dir() else path


def find_class(name: str) -> type[L.LightningModule]:
    """The class of this dotted name."""
    package, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--module must be a class that can be imported, got {name!r}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, L.LightningModule)):
        raise ValueError(f"--module must be a LightningModule, got {name}, which is none.")
    return found


def names(module: L.LightningModule) -> str:
    """Names of the submodules that hold others."""
    return ", ".join(name for name, child in module.named_modules() if name and any(child.children()))


def find_data(args: argparse.Namespace, checkpoint: Path) -> Any:
    """The data with the split of the checkpoint, if it knows one: no image is tested that was trained on."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=args.batch_size, seed=args.seed)
    with explain_failure(checkpoint):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    split = content.get("datamodule_hyper_parameters")
    if split is None:
        print(f"{checkpoint} does not say how its data were split: make sure that the test images are new to it.")
        return data
    unknown = sorted(split.keys() - data.hparams.keys())
    if unknown:
        raise ValueError(
            f"--data must be what the checkpoint was trained on, got {args.data}, which knows no {unknown}."
        )
    return type(data)(
        **{**split, "batch_size": args.batch_size, **({"data_dir": args.data_dir} if args.data_dir else {})}
    )


if __name__ == "__main__":
    main()

"""Test-time augmentation: measure the gain from several views of each test image, for a trained model.

Takes any checkpoint of a LightningModule whose `predict_step` returns probabilities. The checkpoint records the split
of its training data. The recipe splits `--data` in the same way, so that no training image is tested.

Expected: A member of recipes/ensemble.py was trained on unshifted digits. Every set of views does harm to it: flip -2.7
          +- 1.2 points, rotations -54 +- 3. A member of recipes/reproduce/ensembles_and_tta.py was trained on shifted
          digits. It gains from shifts(1): +1.1 +- 0.8 points. Views help if training showed them to the model.
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
    """Predict the test images with each set of views, with and without early exit, and compare with one view."""
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
        parser.error("--resume must not be given: this recipe trains nothing.")
    start = time.perf_counter()
    experiments.quiet()

    # 1. A trained model, and test images that are new to it.
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

    # 3. The same Trainer with the callback. With early exit, an image stops when its argmax can no longer change.
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
        "Cost, with and without early exit",
        [{name: row.get(name) for name in ("views", *cost)} for row in cells],
        "gain: over one view; negative is better for the loss. +-: 95 % interval over the test images, paired",
        "exit passes: mean number of passes of an image with an early exit; differs: images whose argmax it changed",
        *(f"{row['views']}: {comparison.verdict(row)}" for row in rows[1:]),
        "The best of many sets on test is partly luck: choose the views on validation images.",
        f"Files: {folder}/results.json",
        f"Next:  python recipes/test_time_augmentation.py --checkpoint {checkpoint} --average votes",
        *wandb_runs.center(args, folder),
    )


def predict(
    args: argparse.Namespace, folder: Path, module: L.LightningModule, data: Any, *callbacks: L.Callback
) -> tuple[Tensor, Tensor, float]:
    """Predict all test images; return log-probabilities, targets and seconds."""
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
    """Read a set of views, by name or as JSON."""
    views = json.loads(text) if text.startswith("[") else text
    try:
        make_views(views)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return views


def default_views(size: int) -> list[Any]:
    """Choose sets of views for images of ``size`` pixels a side."""
    crop = size - max(1, size // 8)
    sets: list[Any] = ["flip", f"shifts({max(1, size // 28)})", [f"shifts({max(1, size // 28)})", "flip"], "airbench"]
    return [*sets, f"five_crop({crop})", f"ten_crop({crop})", "rotations"]


def name_of(views: Any) -> str:
    """Name a set of views in a table."""
    return views if isinstance(views, str) else " x ".join(map(str, views))


def find_checkpoint(path: Path | None) -> Path:
    """Find the checkpoint: a file, the best of a folder, or the best of the newest ensemble member."""
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
    """Import a LightningModule by its dotted name."""
    package, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--module must be a class that can be imported, got {name!r}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, L.LightningModule)):
        raise ValueError(f"--module must be a LightningModule, got {name}, which is none.")
    return found


def names(module: L.LightningModule) -> str:
    """List the submodules that have submodules themselves."""
    return ", ".join(name for name, child in module.named_modules() if name and any(child.children()))


def find_data(args: argparse.Namespace, checkpoint: Path) -> Any:
    """Load the data with the split that the checkpoint records, if any, so that no training image is tested."""
    data = experiments.data_module(args.data, args.data_dir, batch_size=args.batch_size, seed=args.seed)
    with explain_failure(checkpoint):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    split = content.get("datamodule_hyper_parameters")
    if split is None:
        print(f"{checkpoint} records no split of its data: make sure that it was not trained on the test images.")
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

"""Quickstart: one real training with the kit's callbacks in a plain Lightning Trainer.

Expected: 98 to 99 % test accuracy on scikit-learn's digits. The best epoch depends on the CPU and its threads.
Cost:     16 s on 2 CPU cores, nothing to download
Command:  python recipes/quickstart.py
"""

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import distributed

import lightning_trainingkit as kit
from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import at_least, wandb_runs
from lightning_trainingkit.nn import load_weights, read_manifest

NAMES = ["InitOverride", "EarlyStopping", "BestCheckpoint", "EpochSeed", "ChannelsLast", "CommandCenter"]


def main() -> None:
    """Train, or resume a killed training, and show the scores of the last and the best weights."""
    parser = experiments.argument_parser("quickstart", __doc__)
    parser.add_argument("--epochs", type=at_least(1), default=20, help="at most (%(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="of all ranks together, where --devices is a number (%(default)s)"
    )
    without = {"choices": NAMES, "metavar": "NAME", "action": "append", "default": []}
    parser.add_argument("--without", **without, help=f"leave a callback out, may be repeated: {', '.join(NAMES)}")
    parser.add_argument(
        "--compare-to", type=Path, metavar="DIR", help="show the largest difference from the weights of that run"
    )
    args = parser.parse_args()
    devices = max(1, int(args.devices)) if args.devices.isdigit() else 1
    if args.batch_size < devices:
        parser.error(f"--batch-size must be at least the number of devices, {devices}, got {args.batch_size}.")
    if args.compare_to and "BestCheckpoint" in args.without:
        parser.error("--compare-to needs this run's checkpoints: take it without `--without BestCheckpoint`.")
    if args.compare_to and not (args.compare_to / "checkpoints/last.ckpt").exists():
        parser.error(f"--compare-to must be a run with checkpoints/last.ckpt, got {args.compare_to}.")
    start = time.perf_counter()
    experiments.quiet()

    # 1. Data and a model: any LightningModule would do.
    try:
        data = experiments.data_module(args.data, args.data_dir, batch_size=args.batch_size // devices, seed=args.seed)
        data.setup()  # says here if the data set is absent
        folder = experiments.open_folder("quickstart", args.output, resume=args.resume)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    checkpoints = folder / "checkpoints"
    resumed_from = experiments.newest_checkpoint(checkpoints) if args.resume else None
    if args.resume and resumed_from is None:
        parser.error(f"--resume must find a checkpoint, got none in {checkpoints}. Start a new run without it.")
    L.seed_everything(args.seed, verbose=False)
    model = kit.ImageClassifier(
        "small_resnet",
        data.num_classes,
        model_options={"in_channels": data.image_shape[0]},
        optimizer="AdamW",
        lr=3e-3,
        schedule="warmup_cosine",
    )

    # 2. The kit: callbacks for the Trainer that you already have.
    os.environ |= {"WANDB_MODE": args.wandb, "WANDB_PROJECT": wandb_runs.project(args.data)}
    callbacks = [
        kit.InitOverride("kaiming_normal", verbose=not args.resume),
        kit.EarlyStopping("val/loss", patience=8),
        kit.BestCheckpoint("val/loss", "min", dirpath=str(checkpoints), save_last=True),
        kit.EpochSeed(args.seed),
        kit.ChannelsLast(),
        kit.CommandCenter(group=folder.name),
    ]
    left_out = {*args.without, *(["CommandCenter"] if args.wandb == "disabled" else [])}
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator=args.accelerator,
        devices=args.devices,
        strategy=args.strategy,
        precision=experiments.default_precision(args.data, args.precision, args.accelerator),
        callbacks=[callback for callback in callbacks if type(callback).__name__ not in left_out],
        enable_checkpointing="BestCheckpoint" not in left_out,
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=10,
        logger=False,  # CommandCenter adds W&B's
    )

    # 3. Train, or resume the killed run.
    first_step = torch.load(resumed_from, weights_only=True)["global_step"] if resumed_from else 0
    trainer.fit(model, data, ckpt_path=resumed_from)
    notes = [f"Started from step {first_step}, ran {trainer.global_step - first_step} of {trainer.global_step} steps."]
    if trainer.world_size > 1:
        notes.append(
            f"Largest difference of parameters and buffers between ranks: {difference_between_ranks(trainer, model):g}"
        )

    # 4. Scores of the last and the best weights.
    rows = []
    if "BestCheckpoint" in left_out:
        rows.append(score("restored best" if "EarlyStopping" not in left_out else "last", None, trainer, model, data))
    else:
        model.load_state_dict(load_weights(checkpoints / "last.ckpt"))
        rows.append(score("last", trainer.current_epoch - 1, trainer, model, data))
        kit.load_best(model, checkpoints)
        best = read_manifest(checkpoints)["top_k"][0]
        rows.insert(0, score("restored best", best["epoch"], trainer, model, data))
    metrics = {**rows[0], **{f"{name}_last": value for name, value in rows[-1].items()}}
    metrics = {name: value for name, value in metrics.items() if "/" in name}
    if args.compare_to:
        metrics["difference"] = difference_of_runs(checkpoints, args.compare_to / "checkpoints")
        notes.append(f"Largest difference of weights, last and best, from {args.compare_to}: {metrics['difference']:g}")

    seconds = time.perf_counter() - start
    experiments.write_results(folder, vars(args), metrics | {"steps": trainer.global_step}, rows, seconds)
    experiments.print_table(
        f"{args.data}: {trainer.current_epoch} epochs in {seconds:.0f} s",
        rows,
        *notes,
        "Files: " + ", ".join(map(str, sorted(folder.iterdir()))),
        "Next:  python recipes/quickstart.py --without EarlyStopping",
        "       python recipes/quickstart.py --data fashion-mnist --epochs 5 --batch-size 128",
        "         if its data is absent: apt install dataset-fashion-mnist, or",
        "         python -c \"import torchvision; torchvision.datasets.FashionMNIST('data', download=True)\"",
        "       python recipes/plug_in.py    (the same callbacks in a project that knows nothing of the kit)",
        *([] if "CommandCenter" in left_out else wandb_runs.center(args, folder)),
    )


def score(name: str, epoch: int | None, trainer: L.Trainer, model: L.LightningModule, data: Any) -> dict[str, Any]:
    """Make a row of the table: loss and accuracy of the current weights."""
    val = trainer.validate(model, data, verbose=False)[0]
    test = trainer.test(model, data, verbose=False)[0]
    return {"weights": name, "epoch": epoch, **val, **test}


def difference_between_ranks(trainer: L.Trainer, model: L.LightningModule) -> float:
    """Compare all parameters and buffers with rank 0, and return the largest difference of any rank."""
    flat = torch.cat([value.detach().double().flatten() for value in model.state_dict().values()])
    flat = flat.to(trainer.strategy.root_device)  # where NCCL wants it; the fit has left the model on the CPU
    first = flat.clone()
    distributed.broadcast(first, src=0)
    largest = (flat - first).abs().max()
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return largest.item()


def difference_of_runs(one: Path, other: Path) -> float:
    """Return the largest difference between the weights of two runs, last and best."""
    pairs = [(load_weights(run / "last.ckpt"), load_weights(kit.best_path(run))) for run in (one, other)]
    return max(
        (mine[name].double() - theirs[name].double()).abs().max().item()
        for mine, theirs in zip(*pairs, strict=True)
        for name in mine
    )


if __name__ == "__main__":
    main()

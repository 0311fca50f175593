"""Writes offline W&B runs of several kinds into the folder that is named."""

import math
import sys
import time

import wandb


def start(root, name):
    settings = wandb.Settings(silent=True, x_disable_stats=True)  # new ones for each: W&B writes into them
    options = {"group": "grid", "job_type": "eval", "tags": ["a", "b"]} if name == "whole" else {}
    options |= {"config": {"lr": 0.1, "net": {"width": 3}}} if name == "whole" else {}
    run = wandb.init(
        dir=root, project="task", mode="offline", name=name, reinit="create_new", settings=settings, **options
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    run.define_metric("val/acc", summary="max", step_metric="trainer/global_step")
    return run


def main(root):
    run = start(root, "whole")
    for i in range(5):
        row = {
            "trainer/global_step": 10 * i,
            "val/acc": [0.1, 0.9, 0.5, math.nan, math.inf][i],
            "epoch": i,
            "yes": True,
        }
        run.log({**row, "a.b": -i, "bins": wandb.Histogram([1, 2, 3]), "word": "x"})
    run.config.update({"late": "yes"})
    run.finish()

    run = start(root, "failed")
    run.log({"val/acc": 0.5, "trainer/global_step": 1})
    run.finish(exit_code=1)

    settings = wandb.Settings(silent=True, x_disable_stats=True)
    run = wandb.init(dir=root, project="other", mode="offline", reinit="create_new", settings=settings)
    run.log({"loss": 2.0})
    run.log({"loss": 1.0})
    run.finish()


def resume(root):
    """A run that was killed after step 4, and goes on from a checkpoint of step 2 in a file of its own."""
    for first, last, code in ((0, 5, 1), (3, 8, 0)):
        settings = wandb.Settings(silent=True, x_disable_stats=True)
        options = {"id": "same", "name": "resumed", "resume": "allow", "config": {"try": code, f"from {first}": True}}
        run = wandb.init(dir=root, project="task", mode="offline", reinit="create_new", settings=settings, **options)
        for step in range(first, last):
            run.log({"loss": 10 * code + step, "trainer/global_step": step})
        run.finish(exit_code=code)
        time.sleep(1.1)  # folders are named by the second


if __name__ == "__main__":
    resume(sys.argv[1]) if "resume" in sys.argv else main(sys.argv[1])

"""Writes offline W&B runs of several kinds into the folder that is named."""

import math
import sys
import tempfile
import time

import numpy as np
import wandb
from wandb.sdk.data_types._private import MEDIA_TMP


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
        if code:
            time.sleep(1.1)  # folders are named by the second


def various(root):
    """A run of all that W&B takes, one of many rows, and one that was resumed."""
    # All processes of the fork server have one folder for images, which the first of them to end removes.
    MEDIA_TMP.name = tempfile.mkdtemp(dir=root)
    run = start(root, "media")
    run.config.update({"betas": [0.9, 0.999], "net": {"width": {"first": 3}}, "seed": 2**60, "none": None, "word": "é"})
    run.config.update({"net": {"depth": 4}}, allow_val_change=True)
    for i in range(3):
        run.log(
            {
                "trainer/global_step": 5 * i,
                "net": {"norm": 0.5 * i, "layer.0": {"norm": i, "bins": wandb.Histogram([1, 2, 3])}},
                "bins": wandb.Histogram([1, 2, 3]),
                "array": np.arange(100),
                "scalar": np.float32(0.3),
                "table": wandb.Table(columns=["a", "b"], data=[[1, 2], [3, 4]]),
                "image": wandb.Image(np.zeros((4, 4, 3), np.uint8)),
                "images": [wandb.Image(np.zeros((4, 4, 3), np.uint8))] * 2,
                "page": wandb.Html("<b>x</b>"),
                "typed": {"_type": 5, "value": i},
                "large": 10**25,
                "largest": 1.7e308,
                "odd": [math.nan, math.inf, -math.inf][i],
                "spelled": "NaN",
                'a "quoted"\nname': i,
                "list": [1, 2],
                "empty": {},
                "none": None,
            }
        )
    run.summary["best"] = 0.5
    run.summary["dropped"] = 1
    del run.summary["dropped"]
    run.finish()

    run = start(root, "rows")
    for i in range(150):
        run.log({"trainer/global_step": i, "val/acc": i / 150, **{f"norm{j}": math.sin(i + j) for j in range(5)}})
    run.finish(exit_code=1)
    resume(root)


if __name__ == "__main__":
    {"resume": resume, "various": various}.get(sys.argv[-1], main)(sys.argv[1])

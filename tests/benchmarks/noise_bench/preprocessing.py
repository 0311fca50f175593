"""Preprocessing: mean and std against a pass of the loader, whitening against scikit-learn, and its memory.

Run as a script, it measures the memory of one fit in a process of its own.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

import torch
from sklearn.decomposition import PCA, IncrementalPCA

from lightning_trainingkit import FashionMNISTDataModule
from lightning_trainingkit.data import fit_preprocessing

MOST_MEGABYTES = 400


def rows(args: argparse.Namespace, draw: random.Random) -> list[dict]:
    from noise_bench.comparing import measured, overhead, race, speed

    data = FashionMNISTDataModule(preprocess="none")
    data.setup()
    loader = data.train_dataloader()
    passes = race(
        {
            "pass": lambda: [None for _ in loader],
            "control": lambda: [None for _ in loader],
            "ours": lambda: fit_preprocessing(loader, "channel"),
        },
        args.rounds,
        draw,
        warm_up=1,
    )
    images = data.train_set.dataset.images[data.train_set.indices[:20_000]]
    floats = images.flatten(1).float().div(255).numpy()
    fits = race(
        {
            "ours": lambda: fit_preprocessing(images.split(1024), "pca_whitening"),
            "control": lambda: fit_preprocessing(images.split(1024), "pca_whitening"),
            "IncrementalPCA": lambda: IncrementalPCA(whiten=True).fit(floats),
            "PCA": lambda: PCA(whiten=True, svd_solver="covariance_eigh").fit(floats),
        },
        min(args.rounds, 5),
        draw,
        warm_up=1,
    )
    megabytes = _megabytes()
    return [
        overhead("overhead: mean and std on a pass of Fashion-MNIST", passes, "ours", "pass", draw, goal=1.1),
        overhead("overhead: control, a pass against itself", passes, "control", "pass", draw),
        speed("whitening, 20,000 x 784: IncrementalPCA", fits, "ours", "IncrementalPCA", draw, goal=5),
        speed("whitening, 20,000 x 784: PCA, all in memory", fits, "ours", "PCA", draw),
        speed("whitening: control, ours against itself", fits, "ours", "control", draw),
        measured("memory of ZCA, D = 3,072, MB", megabytes, None, megabytes, MOST_MEGABYTES, most=True),
    ]


def _megabytes() -> float:
    """Peak of a process above its start, while it fits ZCA to images of 3 x 32 x 32."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _resident(name: str) -> float:
    """``VmRSS``, or its peak ``VmHWM``, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _fit(images: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = (torch.rand(256, 3, side, side, generator=generator) for _ in range(0, images, 256))
    fit_preprocessing(batches, "zca")


if __name__ == "__main__":
    torch.set_num_threads(1)
    _fit(512, 8)  # what the libraries take once
    start = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    _fit(4096, 32)
    sys.stdout.write(f"{_resident('VmHWM') - start:.1f}\n")

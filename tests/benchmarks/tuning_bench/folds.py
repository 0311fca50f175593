"""Cross-validation with Wilcoxon pruning against all folds of all configurations, replayed from trained folds.

A table is trained once: 16 random configurations of a small network on the digits, on 10 divisions into 5 folds. A
repeat takes two of the divisions, and runs the race of `cross_validate` on their 10 folds. It is compared with the same
table without pruning. Repeats share trainings, so they are not independent.

- **Cost**: trainings of the race, as a share of 160.
- **Winner**: the race's winner is right if it is the full table's winner, or if its full mean lies inside the 95 %
  interval of the full table's winner.
- **Floor**: with 5 folds nothing can be pruned before the fourth fold, so that 65 of 80 trainings are needed at least.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_trainingkit.functional import resampled_mean
from lightning_trainingkit.tuning.folds.fold_race import FIRST, run_race
from lightning_trainingkit.tuning.folds.folds import Folds, make_folds

CONFIGURATIONS, FOLDS, USED = 16, 5, 2  # divisions that a repeat uses
EPOCHS, BATCH = 10, 64


def rows(args: Any, divisions: int = 10, repeats: int = 20, configurations: int = CONFIGURATIONS) -> list[dict]:
    """The comparisons, in the form of `results.json`."""
    losses, accuracies = table(args.seed, divisions, configurations)
    found = []
    for name, values, mode in (("loss", losses, "min"), ("accuracy", accuracies, "max")):
        for used in (USED, 1):
            found += compared(name, values, mode, used, repeats, args.seed)
    return found


def table(seed: int, divisions: int, configurations: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and accuracies on the held-out part, each of shape (configurations, divisions, folds)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target)
    folds = make_folds(len(targets), FOLDS, divisions, labels=digits.target, seed=seed)
    draws = np.random.default_rng(seed)
    settings = [
        {
            "lr": 10 ** draws.uniform(-4, 0),
            "weight_decay": 10 ** draws.uniform(-5, -1),
            "width": int(draws.choice([16, 32, 64])),
            "dropout": draws.uniform(0, 0.5),
        }
        for _ in range(configurations)
    ]
    scores = np.array(
        [[trained(each, images, targets, folds, number) for number in range(len(folds))] for each in settings]
    ).reshape(configurations, divisions, FOLDS, 2)
    return scores[..., 0], scores[..., 1]


def trained(setting: dict, images: Tensor, targets: Tensor, folds: Folds, number: int) -> tuple[float, float]:
    """Train on a fold, and return loss and accuracy on its held-out part. A loss that is not finite counts as 1e6."""
    torch.manual_seed(number)
    net = nn.Sequential(
        nn.Linear(64, setting["width"]), nn.ReLU(), nn.Dropout(setting["dropout"]), nn.Linear(setting["width"], 10)
    )
    optimizer = torch.optim.SGD(
        net.parameters(), setting["lr"], momentum=0.9, weight_decay=setting["weight_decay"], foreach=True
    )
    inside, held_out = torch.tensor(folds.train(number)), torch.tensor(folds.validation(number))
    for _ in range(EPOCHS):
        for batch in inside[torch.randperm(len(inside))].split(BATCH):
            optimizer.zero_grad()
            cross_entropy(net(images[batch]), targets[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        net.eval()
        logits = net(images[held_out])
        loss = cross_entropy(logits, targets[held_out]).nan_to_num(1e6, 1e6).item()
        return loss, (logits.argmax(1) == targets[held_out]).float().mean().item()


def compared(name: str, values: np.ndarray, mode: str, used: int, repeats: int, seed: int) -> list[dict]:
    """Cost and winner of the race over several draws of divisions."""
    draws = np.random.default_rng([seed, used])
    costs, right = [], []
    count = len(values)
    for _ in range(repeats):
        chosen = draws.choice(values.shape[1], used, replace=False)
        full = values[:, chosen].reshape(count, -1)
        known = {(number, fold): float(full[number, fold]) for number in range(count) for fold in range(full.shape[1])}
        race = run_race(known, count, full.shape[1], mode=mode)
        assert race.is_over
        costs.append(len(race.owed) / full.size)
        best = np.argmin if mode == "min" else np.argmax
        left = [number for number in range(count) if number not in race.out]
        ours, theirs = left[best(full[left].mean(1))], int(best(full.mean(1)))
        interval = resampled_mean(full[theirs].tolist(), 1 / FOLDS)
        right.append(ours == theirs or interval.low <= full[ours].mean() <= interval.high)
    folds = FOLDS * used
    least = (FIRST * count + (folds - FIRST)) / (folds * count)
    title = f"{name}, {count} configurations x {folds} folds"
    low, high = np.quantile(costs, [0.025, 0.975])
    cost_goal, right_goal = (0.5, 0.9) if folds > FOLDS else (None, None)
    return [
        row(f"{title}: cost share (floor {least:.3f})", np.mean(costs), 1.0, low, high, cost_goal, np.mean(costs)),
        row(f"{title}: right winner", np.mean(right), 1.0, None, None, right_goal, -np.mean(right)),
    ]


def row(
    name: str, ours: float, peer: float, low: float | None, high: float | None, goal: float | None, judged: float
) -> dict:
    """A row of `results.json`. A share must be at most its goal, and winners at least."""
    numbers = {"ours": ours, "peer": peer, "ratio": ours / peer, "low": low, "high": high}
    rounded = {key: None if value is None else round(float(value), 4) for key, value in numbers.items()}
    limit = None if goal is None else goal if judged >= 0 else -goal
    return {"name": name, **rounded, "goal": goal, "ok": limit is None or bool(judged <= limit)}

"""All surgeries on one model, and the file that keeps what became of them."""

import contextlib
import gc
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lightning_trainingkit import experiments
from surgery_bench.operations import Plain, perform
from surgery_bench.small_fit import Net, fit_one_step
from surgery_bench.zoo import Model

__all__ = ["Results", "examine", "quiet"]


def quiet() -> None:
    """One thread, no messages, and quick garbage collections."""
    torch.set_num_threads(1)
    experiments.quiet()
    gc.freeze()  # so that each `gc.collect` has little to look at


def examine(model: Model, surgeries: Sequence[str]) -> dict[str, Any]:
    """Do the surgeries on a model. A model that does not train without them is an error of this benchmark."""
    start = time.process_time()
    for clip in (None, 1.0):  # some deep models of random weights explode in one step
        torch.manual_seed(0)
        net = Net(model.build(), clip)
        batch = model.batch()
        fit_one_step(net, batch, [])  # also moves running statistics away from their start
        plain = Plain(net, batch)
        if all(each.isfinite().all() for each in plain.output):
            break
    parameters = sum(each.numel() for each in net.parameters())
    outcomes, seconds = {}, {}
    for name in surgeries:
        begun = time.process_time()
        outcomes[name] = asdict(perform(name, plain))
        gc.collect()  # a Trainer and its module hold each other, which would keep all copies of large models
        seconds[name] = round(time.process_time() - begun, 2)
    return {
        "parameters": parameters,
        "outcomes": outcomes,
        "seconds_of": seconds,
        "seconds": round(time.process_time() - start, 2),
    }


class Results:
    """Results by model, kept in ``results.jsonl``. A run that goes on tries models with a failure again.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "results.jsonl"
        self._known: dict[str, dict[str, Any]] = {}
        for line in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):  # a killed run may leave half a line
                entry = json.loads(line)
                self._known[entry["model"]] = entry["result"]

    def __getitem__(self, model: Model) -> dict[str, Any]:
        return self._known[model.name]

    def missing(self, models: Sequence[Model], surgeries: Sequence[str]) -> list[Model]:
        """The models without a result of these surgeries."""
        return [each for each in models if not self._is_finished(each.name, surgeries)]

    def add(self, model: Model, result: dict[str, Any]) -> None:
        """Keep a result, in the file too."""
        self._known[model.name] = result
        with self._file.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"model": model.name, "result": result}))

    def _is_finished(self, name: str, surgeries: Sequence[str]) -> bool:
        outcomes = self._known.get(name, {"outcomes": {}})["outcomes"]
        return all(each in outcomes and outcomes[each]["state"] != "failed" for each in surgeries)

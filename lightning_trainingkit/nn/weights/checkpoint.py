"""Read the files of a training: find the best snapshot by its manifest, without running code from any file."""

import copy
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_trainingkit._files import write_json
from lightning_trainingkit.nn.structure.names import plain_name
from lightning_trainingkit.nn.weights.read_checkpoint import RUN, check_run, read_checkpoint
from lightning_trainingkit.nn.weights.surgery_record import check_surgery
from lightning_trainingkit.nn.weights.trained import mark_trained

__all__ = ["LEFT_OUT", "MANIFEST", "best_path", "load_best", "load_weights", "read_manifest", "write_manifest"]

LEFT_OUT = "hyper_parameters_left_out"
"""Key in a checkpoint with the names of the hyperparameters that it lacks, by class."""
MANIFEST = "best.json"


def best_path(directory: str | Path) -> Path:
    """Return the path of the checkpoint that the manifest ``best.json`` names as the best.

    Args:
        directory: Folder that ``BestCheckpoint`` wrote to (its ``dirpath``).

    Returns:
        Path of an existing checkpoint file.

    Raises:
        FileNotFoundError: If there is no manifest, or its best file is gone.
        ValueError: If the manifest is not readable.

    Example:
        >>> import json, pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "epoch=3.ckpt").write_bytes(b"")
        >>> _ = (folder / "best.json").write_text(json.dumps({"best": "epoch=3.ckpt"}))
        >>> best_path(folder).name
        'epoch=3.ckpt'
    """
    path = Path(directory) / str(read_manifest(directory)["best"])
    if not path.exists():
        there = ", ".join(sorted(file.name for file in Path(directory).glob("*.ckpt"))) or "none"
        raise FileNotFoundError(
            f"`{path}`, which {MANIFEST} names as best, must exist. Checkpoints that are there: {there}."
        )
    return path


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """Read the manifest of ``BestCheckpoint``: ``best``, ``monitor``, ``mode`` and ``top_k``, the best entry first.

    Each entry of ``top_k`` has ``path``, ``score``, ``epoch`` and ``step``.

    Args:
        directory: Folder that ``BestCheckpoint`` wrote to (its ``dirpath``).

    Raises:
        FileNotFoundError: If there is no manifest.
        ValueError: If the manifest is not readable.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "best.json").write_text(json.dumps({"best": "epoch=3.ckpt", "top_k": []}))
        >>> read_manifest(folder)["best"]
        'epoch=3.ckpt'
    """
    directory = Path(directory)
    manifest = directory / MANIFEST
    if directory.is_file():
        raise FileNotFoundError(
            f"`directory` must be a folder with a {MANIFEST}, got the file {directory}. Give {directory.parent} for "
            "the best, or load this file by `module.load_state_dict(lightning_trainingkit.nn.load_weights(FILE))`."
        )
    if not directory.is_dir():
        raise FileNotFoundError(f"`directory` must be a folder, got {directory}, which does not exist. Check the path.")
    if not manifest.is_file():
        below = sorted(str(found.parent) for found in directory.glob(f"**/{MANIFEST}"))[:5]
        hint = (
            f"There is one in: {', '.join(below)}."
            if below
            else "`BestCheckpoint` writes it after the first validation."
        )
        raise FileNotFoundError(f"`directory` must hold a {MANIFEST}, got {directory}, which has none. {hint}")
    try:
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        content["best"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`{manifest}` must be a manifest written by `BestCheckpoint`, got {error!r} on reading it."
        ) from error
    return content


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint onto the CPU, without running code. A file that needs code is refused.

    Args:
        path: A checkpoint of Lightning, or a saved ``state_dict``.

    Returns:
        Parameters and buffers by name.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is damaged, holds no weights, or would run code on loading.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "net.pt"
        >>> torch.save(nn.Linear(2, 1).state_dict(), path)
        >>> {name: tuple(tensor.shape) for name, tensor in load_weights(path).items()}
        {'weight': (1, 2), 'bias': (1,)}
    """
    return _weights(path, read_checkpoint(path))


def load_best(module: nn.Module, directory: str | Path) -> Path:
    """Load the best snapshot of a training into ``module``, in this or any later process.

    Parameters and buffers keep their device. They change in place, and have their old values after an error, unless
    the module's ``on_load_checkpoint`` replaces layers. The saved and the given module may be compiled or not. The
    module counts as trained from then on.

    Args:
        module: The module that was trained (the ``LightningModule``), built with the same arguments.
        directory: Folder that ``BestCheckpoint`` wrote to.

    Returns:
        The checkpoint that was loaded.

    Raises:
        FileNotFoundError: If the manifest or the checkpoint is missing.
        TypeError: If ``module`` is no module.
        ValueError: If the checkpoint is unreadable, damaged, unsafe, or belongs to another run or architecture.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save(nn.Linear(2, 1).state_dict(), folder / "epoch=3.ckpt")
        >>> _ = (folder / "best.json").write_text(json.dumps({"best": "epoch=3.ckpt"}))
        >>> load_best(nn.Linear(2, 1), folder).name
        'epoch=3.ckpt'
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"`module` must be the module to load into, got {module!r}. The folder comes second.")
    path = best_path(directory)
    content = read_checkpoint(path)
    check_run(path, content, str(read_manifest(directory).get(RUN, "")))
    check_surgery(path, content, module)
    _weights(path, content)
    before = copy.deepcopy(module.state_dict())
    try:
        hook = getattr(module, "on_load_checkpoint", None)
        if callable(hook):  # a LightningModule may change the checkpoint
            hook(content)
        names = {plain_name(name): name for name in before}  # either module may be compiled
        weights = {names.get(plain_name(name), name): value for name, value in _weights(path, content).items()}
        module.load_state_dict(weights, strict=getattr(module, "strict_loading", True))
    except RuntimeError as error:
        module.load_state_dict(before, strict=False)
        raise ValueError(
            f"`module` must have the architecture that {path} was saved from, got {type(module).__name__}: {error} "
            "Build it with the arguments of that training."
        ) from error
    mark_trained(module)
    return path


def _weights(path: str | Path, content: Any) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"`{path}` must hold the weights of a model under `state_dict`, got a file without them.")
    return weights


def write_manifest(
    directory: str,
    monitor: str,
    mode: str,
    scores: dict[str, Tensor],
    positions: dict[str, list[int]],
    run: str = "",
) -> None:
    """Write ``best.json``: the checkpoints of ``directory`` from the best on, with metric, epoch and step.

    Args:
        directory: Folder of the checkpoints.
        monitor: Name of the metric.
        mode: ``"min"`` or ``"max"``.
        scores: Value of the metric by checkpoint path.
        positions: Epoch and optimizer step by checkpoint path.
        run: Token of the run, as in its checkpoints.
    """
    best_first = sorted(scores, key=lambda path: float(scores[path]), reverse=mode == "max")
    top_k = [
        {
            "path": os.path.relpath(path, directory),
            "score": float(scores[path]),
            "epoch": positions[path][0],
            "step": positions[path][1],
        }
        for path in best_first
    ]
    manifest = {"best": top_k[0]["path"], "monitor": monitor, "mode": mode, "top_k": top_k, RUN: run}
    write_json(Path(directory) / MANIFEST, manifest)

"""Find the checkpoints of an ensemble's members, and read them without running code from any."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.structure.names import plain_names
from lightning_trainingkit.nn.weights.checkpoint import LEFT_OUT
from lightning_trainingkit.nn.weights.find_files import find_files
from lightning_trainingkit.nn.weights.read_checkpoint import read_checkpoint
from lightning_trainingkit.nn.weights.surgery_record import SURGERY, surgeries_in

__all__ = ["MemberFile", "as_list", "find_members", "read_members"]


@dataclass(frozen=True)
class MemberFile:
    """The content of a checkpoint, without the optimizer and callback state, but for the layers that were replaced."""

    path: Path
    content: dict[str, Any]

    @property
    def weights(self) -> dict[str, Any]:
        """Weights by name, without the name parts that ``torch.compile`` adds."""
        return plain_names(self.content.get("state_dict", self.content))

    def left_out(self, kind: str) -> list[str]:
        """Names of a class's arguments that the file lacks, since loading them would run code."""
        return list(self.content.get(LEFT_OUT, {}).get(kind, []))

    @property
    def hyper_parameters(self) -> dict[str, Any] | None:
        """Arguments of the module's ``__init__``. None if the file does not hold them."""
        saved = self.content.get("hyper_parameters") if "state_dict" in self.content else None
        return {str(name): value for name, value in saved.items()} if isinstance(saved, Mapping) else None


def as_list(members: Any) -> list[Any]:
    """Return a list of the members in a sequence or an ``nn.ModuleList``. Any other value is one member."""
    several = isinstance(members, Sequence | nn.ModuleList) and not isinstance(members, str)
    return list(members) if several else [members]


def find_members(members: Any) -> list[Path | nn.Module]:
    """Find the members that ``members`` names: a folder, a pattern, a file, a module, or a list of these.

    A folder needs a manifest of ``BestCheckpoint``: all its ``top_k`` are members, the best first. The order is kept,
    and a member that is named twice is a ValueError.
    """
    found: list[Path | nn.Module] = []
    for each in as_list(members):
        found += [each] if isinstance(each, nn.Module) else find_files("members", each)
    if not found:
        raise ValueError("`members` must hold at least one member, got none. Name checkpoints, or pass modules.")
    first: dict[Path | nn.Module, Path | nn.Module] = {}
    for each in found:
        key = each.resolve() if isinstance(each, Path) else each
        if key in first:
            twice = isinstance(each, nn.Module)
            name = f"a {type(each).__name__} twice" if twice else f"{first[key]} and {each}, which are one file"
            raise ValueError(f"`members` must differ, got {name}. Give it a larger weight instead.")
        first[key] = each
    return found


def read_members(members: Any) -> list[MemberFile | nn.Module]:
    """Find members and read their files onto the CPU, without running code. A file that needs code is a ValueError."""
    read = [each if isinstance(each, nn.Module) else _read(each) for each in find_members(members)]
    first: dict[bytes, Path] = {}
    for each in read:
        if isinstance(each, MemberFile):
            one = first.setdefault(_digest(each.weights), each.path)
            if one is not each.path:
                raise ValueError(
                    f"`members` must differ, got the same weights from {one} and {each.path}. Is one a copy, as "
                    "`last.ckpt` may be? Leave it out."
                )
    return read


def _read(path: Path) -> MemberFile:
    content = read_checkpoint(path)
    content = dict(content) if isinstance(content, Mapping) else {}
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"`{path}` must hold the weights of a model, alone or under `state_dict`, got none.")
    surgeries = surgeries_in(content)
    for name in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
        content.pop(name, None)
    if surgeries:
        content["callbacks"] = {key: {SURGERY: layers} for key, layers in surgeries.items()}
    return MemberFile(path, content)


def _digest(weights: Mapping[str, Any]) -> bytes:
    """Return a hash of the weights' names, types, shapes and values."""
    digest = hashlib.blake2b()
    for name, value in sorted(weights.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()

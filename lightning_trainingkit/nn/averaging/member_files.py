"""Find the checkpoints of an ensemble's members, and read them without running code from any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit.nn.structure.names import plain_names
from lightning_trainingkit.nn.weights.checkpoint import explain_failure
from lightning_trainingkit.nn.weights.find_files import find_files

__all__ = ["MemberFile", "as_list", "find_members", "read_members"]


@dataclass(frozen=True)
class MemberFile:
    """The content of a checkpoint, without the state of its training."""

    path: Path
    content: dict[str, Any]

    @property
    def weights(self) -> dict[str, Any]:
        """Weights by name, as they are without ``torch.compile``."""
        return plain_names(self.content.get("state_dict", self.content))

    @property
    def hyper_parameters(self) -> dict[str, Any] | None:
        """Arguments that the module was built with, None if they were not saved."""
        saved = self.content.get("hyper_parameters") if "state_dict" in self.content else None
        return {str(name): value for name, value in saved.items()} if isinstance(saved, Mapping) else None


def as_list(members: Any) -> list[Any]:
    """Return members as a list: one alone, those of a sequence, of an ``nn.ModuleList`` its modules."""
    several = isinstance(members, Sequence | nn.ModuleList) and not isinstance(members, str)
    return list(members) if several else [members]


def find_members(members: Any) -> list[Path | nn.Module]:
    """Find the members that a folder, a pattern, a file, a module or a list of these names, each once, in their order.

    A folder needs a manifest of ``BestCheckpoint``: all of its ``top_k`` are members, the best first.
    """
    found: list[Path | nn.Module] = []
    for each in as_list(members):
        found += [each] if isinstance(each, nn.Module) else find_files("members", each)
    if not found:
        raise ValueError("`members` must hold at least one member, got none. Name checkpoints, or pass modules.")
    for one, other in combinations(found, 2):
        name = f"a {type(one).__name__} twice" if one is other else ""
        if isinstance(one, Path) and isinstance(other, Path) and one.resolve() == other.resolve():
            name = f"{one} and {other}, which are one file"
        if name:
            raise ValueError(f"`members` must differ, got {name}. Give it a larger weight instead.")
    return found


def read_members(members: Any) -> list[MemberFile | nn.Module]:
    """Find members and read their files onto the CPU, without running code: a file that needs code is a ValueError."""
    read = [each if isinstance(each, nn.Module) else _read(each) for each in find_members(members)]
    for one, other in combinations([each for each in read if isinstance(each, MemberFile)], 2):
        if _equal(one.weights, other.weights):
            raise ValueError(
                f"`members` must differ, got the same weights from {one.path} and {other.path}. Is one a copy, as "
                "`last.ckpt` may be? Leave it out."
            )
    return read


def _read(path: Path) -> MemberFile:
    with explain_failure(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    content = dict(content) if isinstance(content, Mapping) else {}
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"`{path}` must hold the weights of a model, alone or under `state_dict`, got none.")
    for name in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
        content.pop(name, None)
    return MemberFile(path, content)


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one if isinstance(one[name], Tensor)]
    return all(isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)

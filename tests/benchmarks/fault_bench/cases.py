"""The list of all cases, and which half is set aside."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .families import FAMILIES
from .plants import PLANTS
from .settings import Settings

__all__ = ["HALVES", "SEEDS", "Case", "faulty_cases", "healthy_cases"]

HALVES = ("development", "held-out")
SEEDS = (0, 1, 2)
_HEALTHY_SEEDS = (3,)  # one for each model and optimizer of a family
_RULE = 25  # seed of the split


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        name: Plant or family, grade, model, optimizer and seed.
        settings: The training.
        twin: The healthy training to compare with.
        half: One of ``HALVES``.
        plant: Name of the fault, or of the healthy family.
        grade: ``edge`` or ``extreme``, with further words; empty for a healthy case.
        expect: Kinds of finding that name the cause.
        verify: What the run must show; empty for faults that must do harm, and for healthy cases.
    """

    name: str
    settings: Settings
    twin: Settings
    half: str
    plant: str
    grade: str = ""
    expect: frozenset[str] = frozenset()
    verify: str = ""

    @property
    def healthy(self) -> bool:
        """Whether no fault is planted."""
        return not self.grade

    @property
    def must_harm(self) -> bool:
        """Whether the fault counts only if it does harm."""
        return not self.healthy and not self.verify


def faulty_cases(seeds: Iterable[int] = SEEDS) -> list[Case]:
    """Make all cases with a fault.

    Each grade of a plant gets two pairs of model and optimizer. Of the plants and grades with the same expected kinds,
    every second one is set aside, in a random order. Where there is one alone, one of its two pairs is set aside.
    """
    groups = defaultdict(list)
    for name, plant in PLANTS.items():
        for grade in plant.grades:
            groups[tuple(sorted(plant.expect))].append((name, grade))
    cases = []
    for group in sorted(groups):
        cells = random.Random(f"{_RULE} {group}").sample(groups[group], len(groups[group]))
        for number, (name, grade) in enumerate(cells):
            plant = PLANTS[name]
            for place, (model, optimizer) in enumerate(_pairs(name, grade)):
                half = HALVES[(number if len(cells) > 1 else place) % 2]
                for seed in seeds:
                    twin = plant.base(Settings(model, optimizer, seed))
                    label = f"{name}, {grade}, {model}, {optimizer}, seed {seed}"
                    settings = plant.grades[grade](twin)
                    cases.append(Case(label, settings, twin, half, name, grade, plant.expect, plant.verify))
    return cases


def healthy_cases() -> list[Case]:
    """Make all cases without a fault. Of the families, every second one is set aside, in a random order."""
    cases = []
    for number, name in enumerate(random.Random(_RULE).sample(sorted(FAMILIES), len(FAMILIES))):
        pairs, change = FAMILIES[name]
        for model, optimizer in pairs:
            for seed in _HEALTHY_SEEDS:
                settings = change(Settings(model, optimizer, seed))
                label = f"{name}, {model}, {optimizer}, seed {seed}"
                cases.append(Case(label, settings, settings, HALVES[number % 2], name))
    return cases


def _pairs(name: str, grade: str) -> list[tuple[str, str]]:
    """Two pairs of model and optimizer, as different as can be, drawn by the names of the plant and grade."""
    plant, draw = PLANTS[name], random.Random(f"{_RULE} {name} {grade}")
    models = draw.sample(plant.models, len(plant.models))
    optimizers = draw.sample(plant.optimizers, len(plant.optimizers))
    first = (models[0], optimizers[0])
    second = (models[-1], optimizers[-1])
    return [first] if first == second else [first, second]

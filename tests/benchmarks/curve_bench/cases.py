"""All planted trainings."""

from dataclasses import dataclass
from typing import Any

from .settings import Settings
from .tasks import HALVES, TASKS

__all__ = ["Case", "all_cases"]

_LOGS: list[dict[str, Any]] = [
    {"logged": "steps", "logs_rate": True},
    {"logged": "epochs", "logs_rate": False},
    {"logged": "losses", "logs_rate": True},
    {"logged": "steps", "logs_rate": False},
    {"logged": "epochs", "logs_rate": True},
]

_PLANTS: dict[str, list[dict[str, Any]]] = {
    "healthy": [
        {},
        {"schedule": "steps", "decay": 1e-4},
        {"noise": 0.2, "seed": 1},
        {"dropout": 0.2, "schedule": "steps", "seed": 1},
    ],
    "not_started": [
        {"init": "constant", "schedule": "constant"},
        {"rate": 1e-5},
        {"init": "tiny", "depth": 3, "rate": 0.5, "schedule": "constant"},
        {"init": "small", "depth": 4, "schedule": "constant", "seed": 1},
    ],
    "plateau": [
        {"rate": 6.0, "batch": 8, "noise": 0.3, "epochs": 0.8, "width": 0.5, "schedule": "constant", "seed": 1},
        {"rate": 10.0, "batch": 16, "noise": 0.3, "epochs": 0.8, "width": 0.25, "schedule": "constant", "seed": 2},
        {"rate": 4.0, "batch": 8, "noise": 0.2, "epochs": 0.6, "schedule": "constant", "seed": 3},
        {"rate": 6.0, "batch": 16, "noise": 0.3, "epochs": 0.8, "schedule": "constant", "seed": 4},
        {"rate": 4.0, "batch": 4, "noise": 0.2, "epochs": 0.5, "width": 0.5, "schedule": "constant", "seed": 5},
        {"rate": 4.0, "batch": 4, "noise": 0.3, "epochs": 0.6, "width": 0.5, "schedule": "constant", "seed": 6},
    ],
    "cut_too_early": [
        {"epochs": 0.25, "schedule": "constant", "rate": 0.3},
        {"rate": 0.05, "schedule": "constant"},
        {"rate": 0.15, "epochs": 0.4, "schedule": "constant", "seed": 1},
        {"rate": 0.1, "epochs": 0.6, "schedule": "constant", "seed": 2},
    ],
    "overfit": [
        {"trained": 80, "epochs": 4.0, "schedule": "constant", "wrong": 0.1},
        {"trained": 150, "epochs": 2.5, "schedule": "constant", "wrong": 0.25, "seed": 1},
        {"trained": 60, "epochs": 4.0, "seed": 2},
        {"wrong": 0.4, "epochs": 1.5, "schedule": "constant", "seed": 3},
    ],
    "underfit": [
        {"width": 0.04},
        {"width": 0.0, "schedule": "steps", "seed": 1},
        {"decay": 0.1, "schedule": "steps", "seed": 2},
        {"width": 0.02, "schedule": "steps", "rate": 2.0, "seed": 4},
        {"width": 0.04, "schedule": "steps", "seed": 5},
    ],
    "noisy": [
        {
            "validated": 6,
            "wrong": 0.3,
            "rate": 4.0,
            "batch": 8,
            "noise": 0.5,
            "epochs": 0.6,
            "schedule": "constant",
            "seed": 1,
        },
        {
            "validated": 5,
            "wrong": 0.2,
            "rate": 4.0,
            "batch": 4,
            "noise": 0.3,
            "epochs": 0.5,
            "schedule": "constant",
            "seed": 2,
        },
        {
            "validated": 5,
            "wrong": 0.3,
            "rate": 6.0,
            "batch": 8,
            "noise": 0.4,
            "epochs": 0.6,
            "schedule": "constant",
            "seed": 3,
        },
        {
            "validated": 8,
            "wrong": 0.4,
            "rate": 6.0,
            "batch": 4,
            "noise": 0.3,
            "epochs": 0.4,
            "schedule": "constant",
            "seed": 4,
        },
        {
            "validated": 5,
            "wrong": 0.2,
            "rate": 4.0,
            "batch": 4,
            "noise": 0.3,
            "epochs": 0.5,
            "schedule": "constant",
            "seed": 6,
        },
    ],
    "diverged": [
        {"rate": 300.0, "schedule": "constant", "epochs": 0.7},
        {"schedule": "growing", "epochs": 1.2},
        {"rate": 100.0, "schedule": "constant", "epochs": 0.7, "seed": 1},
        {"schedule": "growing", "rate": 0.3, "epochs": 1.5, "seed": 2},
    ],
    "leaked": [
        {"leak": "images", "wrong": 0.3, "epochs": 2.0, "width": 2.0},
        {"leak": "label"},
        {"leak": "images", "wrong": 0.15, "epochs": 2.0, "width": 2.0, "schedule": "constant", "seed": 1},
        {"leak": "label", "rate": 0.5, "schedule": "constant", "seed": 2},
    ],
}


@dataclass(frozen=True)
class Case:
    """A training with a planted cause.

    Args:
        plant: The planted cause, the word that `read_curves` should say first.
        number: Which of the plants of this cause.
        settings: The training.
    """

    plant: str
    number: int
    settings: Settings

    @property
    def name(self) -> str:
        """The case in words; the name of its file."""
        return f"{self.settings.task}; {self.plant} {self.number}"

    @property
    def half(self) -> str:
        """``development`` or ``held-out``, by task."""
        return next(half for half, tasks in HALVES.items() if self.settings.task in tasks)


def all_cases() -> list[Case]:
    """All cases, each with one of five ways to log."""
    cases = []
    for place, (name, task) in enumerate(TASKS.items()):
        for plant, variants in _PLANTS.items():
            for number, changes in enumerate(variants):
                settings = Settings(name, **{**_LOGS[(number + place) % len(_LOGS)], **changes})
                if plant in ("plateau", "noisy") and task.optimizer == "sgd":  # the edge of stability is nearer
                    settings = settings.but(rate=settings.rate / 8)
                if settings.leak == "label" and task.regression:  # it leaves the usual gap, and nothing to see
                    settings = settings.but(leak="images", width=2.0, epochs=2.0)
                cases.append(Case(plant, number, settings))
    return cases

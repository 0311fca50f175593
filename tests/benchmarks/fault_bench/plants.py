"""All planted faults, and the faults that no kind of finding covers."""

from .plant import Plant
from .plants_silent import SILENT
from .plants_start import DATA, UNITS, WEIGHTS
from .plants_steps import LOSSES, RATES_AND_STEPS

__all__ = ["NO_KIND", "PLANTS"]

NO_KIND = {
    "a single wrong label in many": "no effect on the accuracy",
    "classes unbalanced": "a property of the data: no statistic of the run is out of order",
    "no activation between the layers": "a linear model trains well, and digits are nearly linear",
    "squared error on class numbers": "it trains, on a question that nobody asked",
    "softmax missing before nll_loss": "the scores still order the classes",
    "layers frozen by accident": "looks the same as layers frozen on purpose",
    "a list in place of a ModuleList": "Lightning and torch never hear of these parameters",
    "augmentation too heavy, or on validation": "the images that the model sees are what they are",
    "clipping not applied, unfrozen too late, EMA never updated, initialisation overwritten": "an intention, unseen",
    "batch of one with BatchNorm": "it trains, slowly, as an instance norm",
    "ranks out of step": "needs several processes",
}
"""Faults of the published taxonomies that no kind of finding covers."""

PLANTS: dict[str, Plant] = {**RATES_AND_STEPS, **WEIGHTS, **UNITS, **LOSSES, **DATA, **SILENT}
"""Name to the fault. The split in halves depends on this order."""

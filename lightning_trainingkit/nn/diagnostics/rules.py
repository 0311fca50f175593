"""Judge a training by what was observed."""

from lightning_trainingkit.nn.diagnostics.finding import Finding
from lightning_trainingkit.nn.diagnostics.observation import Observation

__all__ = ["judge"]


def judge(observation: Observation) -> list[Finding]:
    """Find what is wrong, most likely cause first."""
    return []

"""The settings of one small training. A plant is a change of them."""

from dataclasses import dataclass, replace

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """A training in numbers and names, so that it can be sent to another process and be the key of a file.

    Args:
        task: Name in ``tasks.TASKS``.
        seed: Of the weights, the order and the split.
        rate: Learning rate as a multiple of the task's own.
        schedule: ``constant``, ``cosine``, ``steps`` (a tenth after 60 and 85 %), or ``growing`` (to 1000 times).
        epochs: Epochs as a multiple of the task's own.
        batch: Images in a batch; 0 takes the task's own.
        trained: Examples to train on; 0 takes all of the task's.
        validated: Examples for validation; 0 takes all of the task's.
        wrong: Share of all labels that are drawn at random.
        width: Hidden units as a multiple of the task's own; 0 for a linear model.
        depth: Further hidden layers.
        init: ``own``, ``constant``, ``tiny`` (all weights times 0.1), ``small`` (times 0.3).
        dropout: Rate of dropout on the hidden units.
        noise: Standard deviation of noise on the training inputs, an augmentation.
        decay: Weight decay of SGD; AdamW takes 30 times as much.
        leak: ``""``, ``images`` (validation images are also trained on), ``label`` (the input tells the label).
        logged: ``steps`` (loss of each step), ``epochs`` (epoch means), ``losses`` (epoch means, no accuracy).
        logs_rate: Whether the learning rate is logged.
    """

    task: str
    seed: int = 0
    rate: float = 1.0
    schedule: str = "cosine"
    epochs: float = 1.0
    batch: int = 0
    trained: int = 0
    validated: int = 0
    wrong: float = 0.0
    width: float = 1.0
    depth: int = 0
    init: str = "own"
    dropout: float = 0.0
    noise: float = 0.0
    decay: float = 0.0
    leak: str = ""
    logged: str = "steps"
    logs_rate: bool = True

    def but(self, **changes: object) -> "Settings":
        """Copy these settings with changes."""
        return replace(self, **changes)  # type: ignore[arg-type]

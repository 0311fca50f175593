"""Learning rates that train well, measured by ``python tests/benchmarks/faults.py --grid``."""

__all__ = ["GRID", "RATES"]

GRID = tuple(base * 10.0**power for power in range(-5, 1) for base in (1, 3))

RATES: dict[tuple[str, str], tuple[float, float, float]] = {
    ("mlp", "sgd"): (0.1, 0.03, 0.3),
    ("mlp", "adamw"): (0.003, 0.003, 0.01),
    ("cnn", "sgd"): (0.1, 0.03, 0.3),
    ("cnn", "adamw"): (0.01, 0.003, 0.01),
    ("cnn_bn", "sgd"): (0.1, 0.03, 0.3),
    ("cnn_bn", "adamw"): (0.01, 0.003, 0.01),
    ("resnet", "sgd"): (0.1, 0.03, 0.3),
    ("resnet", "adamw"): (0.01, 0.003, 0.01),
    ("transformer", "sgd"): (0.1, 0.03, 0.3),
    ("transformer", "adamw"): (0.003, 0.001, 0.003),
}
"""Model and optimizer to the best rate, and the lowest and highest rate that end within 5 points of it."""

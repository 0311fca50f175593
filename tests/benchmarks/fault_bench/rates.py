"""Learning rates that train well, measured by ``python tests/benchmarks/faults.py --grid``."""

__all__ = ["GRID", "RATES"]

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)

RATES: dict[tuple[str, str], tuple[float, float, float]] = {
    ("mlp", "sgd"): (0.1, 0.03, 0.1),
    ("mlp", "adamw"): (0.01, 0.001, 0.03),
    ("cnn", "sgd"): (0.03, 0.03, 0.1),
    ("cnn", "adamw"): (0.01, 0.001, 0.03),
    ("cnn_bn", "sgd"): (0.1, 0.001, 0.3),
    ("cnn_bn", "adamw"): (0.01, 0.0003, 0.03),
    ("resnet", "sgd"): (0.1, 0.003, 0.3),
    ("resnet", "adamw"): (0.003, 0.0003, 0.03),
    ("transformer", "sgd"): (0.03, 0.003, 0.03),
    ("transformer", "adamw"): (0.003, 0.001, 0.01),
}
"""Model and optimizer to the best rate, and the lowest and highest rate that end within 5 points of it."""

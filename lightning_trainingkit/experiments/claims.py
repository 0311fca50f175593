"""A claim of the lecture beside the measurement of a recipe."""

import argparse
import re
from typing import Any

__all__ = ["claim"]

VERDICTS = ("holds", "holds in part", "does not hold")
_SAME_NUMBERS = ("output", "resume", "wandb", "accelerator", "devices", "strategy", "data_dir")


def claim(
    parser: argparse.ArgumentParser, args: argparse.Namespace, figure: int, text: str, measured: str, *checks: bool
) -> dict[str, Any]:
    """Judge a claim of the lecture: it holds if all checks do, and holds in part if some do.

    Args:
        parser: Parser of the recipe. Its description names the recipe's command.
        args: Options of this run. The options that change the numbers are added to the command.
        figure: Number of the figure in the lecture, 1 to 8.
        text: The claim, in the lecture's words.
        measured: The measurement, in one sentence.
        checks: Parts of the claim, each true or false.

    Returns:
        ``figure``, ``claim``, ``measured``, ``verdict`` and ``command``, for ``write_results``.

    Raises:
        ValueError: If there is no check, or if the description names no command.

    Example:
        >>> parser = argparse.ArgumentParser(description="Command:  python recipes/toss.py")
        >>> _ = parser.add_argument("--coins", type=int, default=10)
        >>> row = claim(parser, parser.parse_args(["--coins", "99"]), 1, "Coins are fair", "49 heads", True, False)
        >>> row["verdict"], row["command"]
        ('holds in part', 'python recipes/toss.py --coins 99')
    """
    command = re.search(r"Command:\s+(python \S+)", parser.description or "")
    if not checks or command is None:
        got = "no check" if not checks else "a description without one"
        raise ValueError(f"A claim must have checks and a command, got {got}. Write `Command:  python recipes/...`.")
    options = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in vars(args).items()
        if name not in _SAME_NUMBERS and value != parser.get_default(name)
    ]
    verdict = VERDICTS[0 if all(checks) else 1 if any(checks) else 2]
    return {
        "figure": figure,
        "claim": text,
        "measured": measured,
        "verdict": verdict,
        "command": " ".join([command[1], *options]),
    }

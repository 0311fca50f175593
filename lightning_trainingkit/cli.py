"""The command ``trainingkit``: checks before a training, curves, and command centers."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from lightning_trainingkit.commands.check import add_check
from lightning_trainingkit.commands.dashboard import add_dashboard
from lightning_trainingkit.commands.read import add_read
from lightning_trainingkit.commands.tune import add_tune
from lightning_trainingkit.commands.workspace import add_workspace
from lightning_trainingkit.dashboards.printable import printable

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. An error in the input is printed in one line."""
    parser = _Parser(prog="trainingkit", description="Checks, curves and command centers of your trainings.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions that matter")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_check, add_tune, add_read, add_dashboard, add_workspace):
        add(commands)
    args, others = parser.parse_known_args(arguments)
    args.others = others
    if others and args.command not in ("check", "tune"):  # whose arguments depend on the classes of the user
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        return int(args.run(args))
    except (ValueError, OSError, ImportError) as error:
        print(printable(f"trainingkit {args.command}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print an error in the arguments. They may hold names of files that the shell has expanded."""
        super().error(printable(message))


class _Version(argparse.Action):
    """Print the versions of the kit and of the packages that its results depend on, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from lightning_trainingkit._version import versions

        installed = versions()
        print(f"lightning-trainingkit {installed.pop('lightning_trainingkit')}")
        print(", ".join(f"{name} {version}" for name, version in installed.items()))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())

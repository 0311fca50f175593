"""``trainingkit workspace``: save the command center as a W&B workspace."""

import argparse
from typing import Any

from lightning_trainingkit.dashboards.printable import printable

__all__ = ["add_workspace"]


def add_workspace(commands: Any) -> None:
    """Add the command to the parser's commands."""
    workspace = commands.add_parser(
        "workspace",
        help="save the command center as a W&B workspace",
        description="Save the command center as a view of a W&B project; saving again updates the same view.",
    )
    workspace.add_argument("--entity", required=True, help="W&B user or team")
    workspace.add_argument("--project", required=True, help="W&B project")
    workspace.add_argument(
        "--target", default="val/loss", help="metric by which runs are compared, such as val/f1.max (%(default)s)"
    )
    workspace.add_argument(
        "--settings",
        nargs="+",
        metavar="NAME",
        default=["lr", "weight_decay", "batch_size", "optimizer", "schedule"],
        help="names in the runs' config for the hyperparameter panels, numbers first (%(default)s)",
    )
    workspace.set_defaults(run=_workspace)


def _workspace(args: argparse.Namespace) -> int:
    from lightning_trainingkit.dashboards.panels import command_center
    from lightning_trainingkit.dashboards.workspace import save_workspace

    print(printable(save_workspace(args.entity, args.project, command_center(args.target), args.settings)))
    return 0

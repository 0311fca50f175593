"""Draw the command center as a workspace of a W&B project."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lightning_trainingkit.dashboards.panels import (
    Curves,
    Dots,
    Gap,
    Importance,
    Panel,
    Parallel,
    Scores,
    Section,
    direction,
)
from lightning_trainingkit.dashboards.read.rows import STEP
from lightning_trainingkit.dashboards.read.wandb_online import asking

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

__all__ = ["build_workspace", "save_workspace"]

_TITLE = "Command center"
_MAX_RUNS = 50  # W&B draws 10 unless told
_VIEW = "trainingkit"  # the view's name within its project: always the same, so that it is found again


def build_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> "Workspace":
    """Describe the center in W&B's terms; needs no account and no network.

    A noisy metric is a line plot of the real values with their moving average (W&B's scatter plots have one dot a run),
    and a second one of mean and deviation by group. Hyperparameters are compared by the best value of the target, which
    ``CommandCenter`` has W&B keep as ``val/loss.min`` or ``val/acc.max``: the lowest of a loss, the highest of a score
    such as an accuracy. A target whose name is that of neither must say so at its end: ``val/width.max``.

    Args:
        entity: W&B user or team.
        project: W&B project.
        sections: The center.
        settings: Names in the runs' config for the panels of hyperparameters; the first two get a panel of dots.

    Raises:
        ImportError: If wandb-workspaces is not installed.
        ValueError: If nothing says which end of the target is the better one.
    """
    ws, _ = _packages()
    workspace: Workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=_TITLE,
        sections=[
            ws.Section(
                name=section.title,
                panels=[drawn for panel in section.panels for drawn in _drawn(panel, settings)],
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=2, rows=3),
            )
            for section in sections
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=_MAX_RUNS),
    )
    return workspace


def save_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> str:
    """Save the center as a view of the project and return its address.

    A project has one command center, which everyone who may write there shares: saving again, also with another target
    or other settings, updates the same view and undoes what was changed in it by hand. To keep such changes, save them
    in W&B as a new view. Other views are left as they are.

    Args:
        entity: W&B user or team.
        project: W&B project, which must exist.
        sections: The center.
        settings: As in :func:`build_workspace`.

    Raises:
        ImportError: If wandb-workspaces is not installed.
        ValueError: If nobody is logged in, if there is no such project, or if W&B refuses or doesn't answer.
    """
    for kind, name in (("entity", entity), ("project", project)):
        if not name or set(name) & set("/\\#?%:"):
            raise ValueError(
                f"`{kind}` must be the name of a W&B {kind}, got {name!r}. An address is .../ENTITY/PROJECT."
            )
    workspace = build_workspace(entity, project, sections, settings)
    from wandb_workspaces.workspaces import Workspace, internal

    workspace._internal_name = f"nw-{_VIEW}-v"
    with asking(f"save the command center of {entity}/{project}") as app:
        try:
            # Of this address only the path and the view's name are read.
            saved = Workspace.from_url(f"https://wandb.ai/{entity}/{project}?nw={_VIEW}")
        except ValueError as error:
            if "not found in project" not in str(error):
                raise
        else:
            workspace._internal_id, workspace._internal_runset_id = saved._internal_id, saved._internal_runset_id
        # What `workspace.save()` does, but for what it prints: its address lacks the path of W&B's own site, where
        # projects are at https://forge.coreweave.com/wandb/ENTITY/PROJECT.
        view = internal.upsert_view2(workspace._to_model())["upsertView"]["view"]
    return f"{app}/{quote(entity)}/{quote(project)}?nw={view['name'].removeprefix('nw-').removesuffix('-v')}"


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise ImportError(f"{error}. Run: pip install 'lightning-trainingkit[dashboard]'.") from error
    return ws, wr


def _drawn(panel: Panel, settings: Sequence[str]) -> Iterator[Any]:
    _, wr = _packages()
    if isinstance(panel, Curves):
        if panel.metric.endswith("*"):
            yield _lines(panel.metric.rstrip("*-/_"), metric_regex=f"^{panel.metric[:-1]}.*")
            return
        curves = {"y": [panel.metric], "log_y": panel.log_y}
        smooth = {"smoothing_type": "average", "smoothing_factor": 10, "smoothing_show_original": True}
        yield _lines(panel.metric, **curves, **(smooth if panel.smooth else {}))
        if panel.smooth:
            groups = {"groupby": wr.Metric("Group"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
            yield _lines(f"{panel.metric}: mean and deviation by group", **curves, **groups)
    elif isinstance(panel, Gap):
        difference = f"${{{panel.one}}} - ${{{panel.other}}}"
        yield _lines(panel.title, y=[panel.one, panel.other], custom_expressions=[difference])
    elif isinstance(panel, Parallel):
        axes = [*(wr.Config(name) for name in settings), wr.SummaryMetric(_best(panel.metric))]
        columns = [wr.ParallelCoordinatesPlotColumn(axis) for axis in axes]
        yield wr.ParallelCoordinatesPlot(columns=columns, title="All settings of each run")
    elif isinstance(panel, Importance):
        yield wr.ParameterImportancePlot(with_respect_to=_best(panel.metric))
    elif isinstance(panel, Dots):
        y = wr.SummaryMetric(_best(panel.metric))
        for name in settings[:2]:
            yield wr.ScatterPlot(title=f"One dot a run: {name}", x=wr.Config(name), y=y, log_x=name == "lr")
    elif isinstance(panel, Scores):
        yield wr.BarPlot(title=panel.title, metrics=list(panel.metrics), max_runs_to_show=30)
    else:
        yield wr.RunComparer(diff_only="split")


def _lines(title: str, **options: Any) -> Any:
    _, wr = _packages()
    return wr.LinePlot(title=title, x=STEP, max_runs_to_show=_MAX_RUNS, **options)


def _best(metric: str) -> str:
    """Where the summary keeps a metric's best value: W&B nests it, as ``{"val/acc": {"max": 0.9}}``."""
    end = direction(metric)
    if end is None:
        raise ValueError(
            f"`target` must say which end of it is the better one, got {metric!r}. Take {metric}.max or {metric}.min."
        )
    return metric if metric.endswith((".min", ".max")) else f"{metric}.{end}"

"""Draw the command center as a workspace of a W&B project."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lightning_trainingkit.dashboards.panels import (
    Curves,
    Dots,
    Gap,
    Importance,
    Panel,
    Parallel,
    Scores,
    Section,
)

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

__all__ = ["build_workspace", "save_workspace"]

_TITLE = "Command center"
_STEP = "trainer/global_step"


def build_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> "Workspace":
    """Describe the center in W&B's terms; needs no account and no network.

    A noisy metric is a line plot of the real values with their moving average (W&B's scatter plots have one dot a run),
    and a second one of mean and deviation by group.

    Args:
        entity: W&B user or team.
        project: W&B project.
        sections: The center.
        settings: Names in the runs' config for the panels of hyperparameters; the first two get a panel of dots.

    Raises:
        ImportError: If wandb-workspaces is not installed.
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
        settings=ws.WorkspaceSettings(x_axis=_STEP, max_runs=50),
    )
    return workspace


def save_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> str:
    """Save the center as a view of the project, or update the one that was saved before, and return its address.

    Raises:
        ImportError: If wandb-workspaces is not installed.
        ValueError: If nobody is logged in, or W&B refuses.
    """
    ws, _ = _packages()
    import wandb

    if not wandb.api.api_key:
        raise ValueError("`WANDB_API_KEY` must be set where a workspace is saved, got none. Run: wandb login.")
    workspace = build_workspace(entity, project, sections, settings)
    # The name of a view within its project: the same each time, so that it is found again.
    name = hashlib.sha256(f"trainingkit {_TITLE}".encode()).hexdigest()[:11]
    try:
        workspace._internal_name = f"nw-{name}-v"
        try:
            saved = ws.Workspace.from_url(f"{workspace.url}")
        except ValueError as error:
            if "not found in project" not in str(error):
                raise
        else:
            workspace._internal_id, workspace._internal_runset_id = saved._internal_id, saved._internal_runset_id
        workspace.save()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ValueError(f"W&B did not save the workspace of {entity}/{project}: {error}") from error
    return str(workspace.url)


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
            yield wr.LinePlot(title=panel.metric.rstrip("*-/_"), x=_STEP, metric_regex=f"^{panel.metric[:-1]}.*")
            return
        curves = {"x": _STEP, "y": [panel.metric], "log_y": panel.log_y, "max_runs_to_show": 50}
        if not panel.smooth:
            yield wr.LinePlot(title=panel.metric, **curves)
            return
        smooth = {"smoothing_type": "average", "smoothing_factor": 10, "smoothing_show_original": True}
        yield wr.LinePlot(title=panel.metric, **curves, **smooth)
        yield wr.LinePlot(
            title=f"{panel.metric}: mean and deviation by group",
            **curves,
            groupby=wr.Metric("Group"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )
    elif isinstance(panel, Gap):
        yield wr.LinePlot(
            title=panel.title,
            x=_STEP,
            y=[panel.one, panel.other],
            custom_expressions=[f"${{{panel.one}}} - ${{{panel.other}}}"],
        )
    elif isinstance(panel, Parallel):
        columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(name)) for name in settings]
        columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(panel.metric)))
        yield wr.ParallelCoordinatesPlot(columns=columns, title="All settings of each run")
    elif isinstance(panel, Importance):
        yield wr.ParameterImportancePlot(with_respect_to=panel.metric)
    elif isinstance(panel, Dots):
        for name in settings[:2]:
            yield wr.ScatterPlot(
                title=f"One dot a run: {name}", x=wr.Config(name), y=wr.SummaryMetric(panel.metric), log_x=name == "lr"
            )
    elif isinstance(panel, Scores):
        yield wr.BarPlot(title=panel.title, metrics=list(panel.metrics), max_runs_to_show=30)
    else:
        yield wr.RunComparer(diff_only="split")

"""Build the command center as a workspace of a W&B project."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lightning_trainingkit.dashboards.checks import CHECKS
from lightning_trainingkit.dashboards.panels import (
    Checks,
    Curves,
    Dots,
    Gap,
    Importance,
    Panel,
    Parallel,
    Scores,
    Searches,
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
# W&B puts `value` after the first part of a nested name.
_COLUMNS = [f"config:check.value.{name}" for name in CHECKS if name != "curves"]
_VIEW = "trainingkit"  # name of the view in its project: a fixed name, so that a later save finds the view


def build_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> "Workspace":
    """Describe the center as a W&B workspace, without an account and without network.

    - **A noisy metric** has two line plots: logged values with their moving average, and mean and deviation by group.
      W&B's scatter plots have one dot a run and cannot show the values.
    - **Hyperparameters** are compared by the best value of the target. ``CommandCenter`` lets W&B keep it as
      ``val/loss.min`` or ``val/acc.max``: the lowest loss, the highest score.
    - **Checks** are columns of the runs' table, beside the name. W&B has no panel for texts of the config.
    - **A target** whose name is neither a loss nor a score must end in its better end: ``val/width.max``.

    Args:
        entity: W&B user or team.
        project: W&B project.
        sections: Sections of the center.
        settings: Names in the runs' config for the hyperparameter panels. The first two get a panel of dots.

    Raises:
        ImportError: If wandb-workspaces is not installed.
        ValueError: If the better end of the target is unknown.
    """
    ws, _ = _packages()
    checked = any(isinstance(panel, Checks) for section in sections for panel in section.panels)
    drawn = [
        (section.title, [each for panel in section.panels for each in _drawn(panel, settings)]) for section in sections
    ]
    workspace: Workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=_TITLE,
        sections=[
            ws.Section(
                name=title,
                panels=panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=2, rows=3),
            )
            for title, panels in drawn
            if panels
        ],
        runset_settings=ws.RunsetSettings(pinned_columns=_COLUMNS if checked else []),
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=_MAX_RUNS),
    )
    return workspace


def save_workspace(entity: str, project: str, sections: Sequence[Section], settings: Sequence[str]) -> str:
    """Save the center as a view of the project and return its address.

    A project has one command center. All users who may write to the project share it. Saving again updates the same
    view, also with another target or other settings, and overwrites changes that were made by hand. To keep such
    changes, save them in W&B as a new view. Other views are not changed.

    Args:
        entity: W&B user or team.
        project: W&B project, which must exist.
        sections: Sections of the center.
        settings: As in :func:`build_workspace`.

    Raises:
        ImportError: If wandb-workspaces is not installed.
        ValueError: If no user is logged in, if the project does not exist, or if W&B refuses or does not answer.
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
        # As `workspace.save()` does. It also prints an address, which lacks the path of W&B's own site: there, projects
        # are at https://forge.coreweave.com/wandb/ENTITY/PROJECT.
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
    elif not isinstance(panel, Checks | Searches):
        yield wr.RunComparer(diff_only="split")


def _lines(title: str, **options: Any) -> Any:
    _, wr = _packages()
    return wr.LinePlot(title=title, x=STEP, max_runs_to_show=_MAX_RUNS, **options)


def _best(metric: str) -> str:
    """Name of a metric's best value in the summary, where W&B nests it: ``{"val/acc": {"max": 0.9}}``."""
    end = direction(metric)
    if end is None:
        raise ValueError(
            f"`target` must say which end of it is the better one, got {metric!r}. Take {metric}.max or {metric}.min."
        )
    return metric if metric.endswith((".min", ".max")) else f"{metric}.{end}"

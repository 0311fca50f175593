"""The only file of the command center that touches private parts of Lightning's WandbLogger."""

from collections.abc import Callable
from functools import wraps
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from lightning_trainingkit._lightning import L, WandbLogger

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["guard_logger", "monitored_only", "mute_logger", "open_run", "take_run", "unused_run"]

_LOGGER_METHODS = (
    *("log_metrics", "log_hyperparams", "log_graph", "save", "after_save_checkpoint", "finalize", "watch"),
    *("log_table", "log_text", "log_image", "log_audio", "log_video"),
)
_TAKEN: "WeakSet[Run]" = WeakSet()


def unused_run(logger: WandbLogger) -> "Run | None":
    """Return the run that ``logger`` has open, if no fit of this process has taken it yet."""
    import wandb

    run = logger._experiment
    return run if isinstance(run, wandb.Run) and run not in _TAKEN else None


def take_run(logger: WandbLogger, run: "Run") -> None:
    """Reserve ``run`` for one fit, and let the logger open its next run in the same project and folder."""
    from lightning_trainingkit.callbacks.command_center.run import adopt

    adopt(run)
    _TAKEN.add(run)
    # A logger that was handed its run (`experiment=run`) would open the next run online, in the default project.
    logger._wandb_init.update(
        project=run.project,
        entity=run.entity or None,
        group=run.group or None,
        job_type=run.job_type or None,
        mode=run.settings.mode,
        dir=run.settings.root_dir,
    )


def open_run(logger: WandbLogger, **init: Any) -> "Run":
    """Give ``logger`` a new run, opened with the arguments of ``init`` that are not None."""
    from lightning_trainingkit.callbacks.command_center.run import start

    # W&B may have handed out another fit's open run. An id that the user asked for is not used yet.
    if logger._id is None or logger._id in (run.id for run in _TAKEN):
        # Chosen here, so that folders named by it (ModelCheckpoint's) have a name if W&B fails now.
        logger._id = token_hex(4)
    init = {name: value for name, value in init.items() if value is not None}
    logger._wandb_init.update(init, id=logger._id, reinit="create_new")
    logger._wandb_init.pop("anonymous", None)  # W&B warns of it even when it is None
    logger._logged_model_time = {}
    logger._checkpoint_callbacks = {}
    logger._experiment = None
    # Not through `logger.experiment`, which takes a global run where there is one. It would also set the axes.
    logger._experiment = run = start(**logger._wandb_init)
    take_run(logger, run)
    return run


def mute_logger(logger: WandbLogger) -> None:
    """Let ``logger`` ignore all calls until it has a new run."""
    logger._experiment = _Muted(logger.version)  # type: ignore[assignment]


def monitored_only(trainer: L.Trainer) -> dict[str, float]:
    """Metrics of the ending validation that callbacks find under a name that no logger gets.

    Of ``self.log("val_loss", ..., on_step=True)`` loggers get ``val_loss_step`` and ``val_loss_epoch``, and of
    ``self.log("val_loss", ..., logger=False)`` nothing. Call it on every rank, in the validation's last hook.
    """
    results = trainer._results
    if results is None:
        return {}
    found = {}
    for metric in results.values():
        if metric.meta.on_epoch and not metric.has_reset:
            name, logged = results._forked_name(metric, on_step=False)
            if (name != logged or not metric.meta.logger) and name in trainer.callback_metrics:
                found[name] = float(trainer.callback_metrics[name])
    return found


def guard_logger(logger: WandbLogger, attempt: Callable[[Callable[[], Any]], Any]) -> Callable[[], None]:
    """Send every call that Lightning or the user makes to ``logger``, or to its run's ``log``, through ``attempt``.

    Returns:
        A function that restores the methods.
    """
    undo = [_guard(logger, name, attempt) for name in _LOGGER_METHODS]
    undo.append(_guard(logger.experiment, "log", attempt))

    def put_back() -> None:
        for each in undo:
            each()

    return put_back


def _guard(owner: Any, name: str, attempt: Callable[[Callable[[], Any]], Any]) -> Callable[[], None]:
    found = vars(owner).get(name)
    method = getattr(owner, name)

    @wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return attempt(lambda: method(*args, **kwargs))

    def put_back() -> None:
        if found is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = found

    vars(owner)[name] = guarded
    return put_back


class _Muted:
    """Replaces a run: takes every call, item and attribute, and does nothing."""

    def __init__(self, id: str | None) -> None:  # noqa: A002
        self.id = id

    def __getattr__(self, name: str) -> "_Muted":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> "_Muted":
        return self

    def __getitem__(self, name: str) -> "_Muted":
        return self

    def __setitem__(self, name: str, value: Any) -> None:
        pass

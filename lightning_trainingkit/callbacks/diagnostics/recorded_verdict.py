"""Write a verdict to the loggers whose runs the command center reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_trainingkit._lightning import CSVLogger, L, TensorBoardLogger, WandbLogger, save_hparams_to_yaml
from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["health_line", "record_verdict"]


def health_line(findings: Sequence[Finding]) -> str:
    """Say the findings in one line that begins with pass, warn or fail, as the command center shows it.

    Harmful findings fail, wrong ones warn. Advice is no alarm.

    Args:
        findings: The findings, most likely cause first.

    Example:
        >>> health_line([])
        'pass. Nothing wrong.'
    """
    alarms = [finding for finding in findings if finding.level != "advice"]
    told = alarms or list(findings)
    verdict = "fail" if any(each.level == "harmful" for each in alarms) else "warn" if alarms else "pass"
    if not told:
        return f"{verdict}. Nothing wrong."
    first = told[0]
    where = f" in {first.where}" if first.where else ""
    more = f" Further findings: {', '.join(each.kind for each in told[1:])}." if told[1:] else ""
    return f"{verdict}. {first.kind}{where}: {first.message} {first.advice}{more}"


def record_verdict(trainer: L.Trainer, check: str, line: str, details: Mapping[str, float] | None = None) -> None:
    """Write a verdict into the hyperparameters of W&B's, CSVLogger's and TensorBoard's run, on rank 0.

    The verdicts of other checks and the user's own setting ``check`` stay. Loggers of other kinds are left alone:
    some refuse a second value.

    Args:
        trainer: The Trainer.
        check: Name of the check, such as ``"health"``.
        line: The verdict in one line.
        details: Numbers by name, such as the rates that were found.
    """
    if not trainer.is_global_zero:
        return
    new = {check: line} | {f"{check}.{name}": value for name, value in (details or {}).items()}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            _log(logger, logger.experiment.config, new)
        elif isinstance(logger, CSVLogger):
            _log(logger, logger.experiment.hparams, new)
        elif isinstance(logger, TensorBoardLogger):
            # Not `log_hyperparams`: TensorBoard's view of hyperparameters allows one set for each run. Lightning writes
            # the file once, at the start of the fit.
            found = _with(logger.hparams, new)
            if found is not None and Path(logger.log_dir).is_dir():
                logger.hparams["check"] = found
                save_hparams_to_yaml(str(Path(logger.log_dir, logger.NAME_HPARAMS_FILE)), logger.hparams)


def _log(logger: WandbLogger | CSVLogger, settings: Any, new: Mapping[str, Any]) -> None:
    found = _with(settings, new)
    if found is not None:
        logger.log_hyperparams({"check": found})


def _with(settings: Any, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdicts that a logger holds and the new ones; None if the user has another setting of this name."""
    found = settings.get("check")
    if found is None or isinstance(found, Mapping):
        return {**(found or {}), **new}
    return None

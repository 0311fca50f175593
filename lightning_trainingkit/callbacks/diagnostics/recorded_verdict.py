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


def record_verdict(trainer: L.Trainer, check: str, line: str) -> None:
    """Write a verdict into the hyperparameters of W&B's, CSVLogger's and TensorBoard's run, on rank 0.

    The verdicts of other checks and the user's own setting ``check`` stay. Loggers of other kinds are left alone:
    some refuse a second value.

    Args:
        trainer: The Trainer.
        check: Name of the check, such as ``"health"``.
        line: The verdict in one line.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            found = _with(logger.experiment.config, check, line)
            if found is not None:
                logger.log_hyperparams({"check": found})
        elif isinstance(logger, CSVLogger):
            found = _with(logger.experiment.hparams, check, line)
            if found is not None:
                logger.log_hyperparams({"check": found})
        elif isinstance(logger, TensorBoardLogger):
            found = _with(logger.hparams, check, line)
            # Not `log_hyperparams`: TensorBoard's view of hyperparameters allows one set for each run. Lightning writes
            # the file once, at the start of the fit.
            if found is not None and Path(logger.log_dir).is_dir():
                logger.hparams["check"] = found
                save_hparams_to_yaml(str(Path(logger.log_dir, logger.NAME_HPARAMS_FILE)), logger.hparams)


def _with(settings: Any, check: str, line: str) -> dict[str, Any] | None:
    """The verdicts that a logger holds and the new one; None if the user has another setting of this name."""
    found = settings.get("check")
    if found is None or isinstance(found, Mapping):
        return {**(found or {}), check: line}
    return None

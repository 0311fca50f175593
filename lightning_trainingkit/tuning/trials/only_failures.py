"""End a search in which no trial works."""

from lightning_trainingkit.tuning.trials.study import Study

__all__ = ["refuse_only_failures"]

_FIRST = 3  # so many failed trials, and no value yet, end the search


def refuse_only_failures(study: Study, at_end: bool = False) -> None:
    """Raise with the first traceback, and give the study up, if the first trials all failed and none reported a value.

    Args:
        study: The study.
        at_end: Whether no further trial is run. One failed trial is enough then.

    Raises:
        RuntimeError: If no trial works.
    """
    tickets = study.tickets().values()
    failed = [each for each in study.results() if each.state == "failed"]
    if any(each.reports for each in tickets) or not failed or any(each.state == "completed" for each in tickets):
        return
    if len(failed) >= min(_FIRST, len(tickets)) or at_end:
        study.give_up()
        first = min(failed, key=lambda each: each.trial)
        raise RuntimeError(
            f"`module` must train, got {len(failed)} failed trials and no finished one. Mend the first error, with "
            f"{first.params}, and the same call begins again:\n{first.error}"
        )

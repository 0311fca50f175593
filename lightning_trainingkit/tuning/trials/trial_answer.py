"""What a worker does with a message from the process of a trial."""

import math
from multiprocessing.connection import Connection
from typing import Any

from lightning_trainingkit.tuning.trials.attempts import Attempts
from lightning_trainingkit.tuning.trials.trial_slot import TrialSlot
from lightning_trainingkit.tuning.trials.wrong_setup import WrongSetupError

__all__ = ["answer"]


def answer(attempts: Attempts, max_epochs: int, slot: TrialSlot, pipe: Connection, message: tuple[Any, ...]) -> None:
    """Tell the study what a trial says. A report is answered: whether the trial must stop.

    Args:
        attempts: The attempts of the study.
        max_epochs: Epochs of a trial.
        slot: The attempt.
        pipe: The pipe from which the message came.
        message: As ``run_trial`` lists them.

    Raises:
        WrongSetupError: If the trial says that no hyperparameters would mend its error.
    """
    kind, *content = message
    attempt = slot.attempt
    if slot.ended:
        return
    if kind == "began":
        slot.began = True
        slot.resumed = slot.epoch = content[0]
        for epoch, value in attempt.reports.items():
            if epoch <= slot.resumed:
                attempts.report(attempt, epoch, value)
    elif kind == "report":
        slot.epoch, slot.value = content
        stop = attempts.report(attempt, *content)
        try:
            pipe.send(stop and slot.epoch < max_epochs)  # a whole training is not pruned at its end
        except OSError:
            return  # its end is seen next
    elif kind == "done":
        (outcome,) = content
        if outcome["pruned"] or outcome["value"] is None or not math.isfinite(outcome["value"]):
            attempts.prune(attempt, outcome)
        else:
            attempts.complete(attempt, outcome["value"], outcome)
        slot.ended = True
    else:
        said = str(content[0])
        if kind == "wrong":  # the ticket is given back
            raise WrongSetupError(said)
        attempts.fail(attempt, said)
        slot.ended = True
        if len(slot.processes) > 1:
            slot.kill()  # the other ranks wait for this one

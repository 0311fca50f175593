"""The answer of one step: pass, warn or fail, with the reason in words."""

from dataclasses import dataclass
from typing import Literal

from lightning_trainingkit.nn.diagnostics.finding import Finding

__all__ = ["Verdict"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of one step. The steps return subclasses with further numbers.

    Args:
        step: The step, such as ``"initial_loss"``, or a question to a search, such as ``"edges"``.
        verdict: ``"pass"``, ``"warn"`` or ``"fail"``.
        message: What was measured, in one or two sentences with numbers.
        advice: What to do, with a line of Python or YAML. Empty if there is nothing to do.
        value: The number that the verdict rests on. None if there is none.
        findings: Reasons that were seen in the module, its loss or its input, most likely first.
        notes: Remarks, such as what was switched off for the step.

    Example:
        >>> verdict = Verdict(step="initial_loss", verdict="pass", message="The loss begins at 2.31, chance is 2.30.")
        >>> verdict.line
        'pass. The loss begins at 2.31, chance is 2.30.'
    """

    step: str
    verdict: Literal["pass", "warn", "fail"]
    message: str
    advice: str = ""
    value: float | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The verdict, the message and the advice in one line, as the command center shows it.

        No colon follows the verdict: in a text, "pass: ..." looks like a password, which the command center hides.
        """
        return f"{self.verdict}. {' '.join(filter(None, (self.message, self.advice)))}"

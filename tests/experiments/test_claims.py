"""A claim's verdict follows from its checks, and its command repeats the run that measured it."""

import argparse

import pytest

from lightning_trainingkit.experiments import argument_parser, claim

DOC = "A recipe.\n\nCost:     1 s\nCommand:  python recipes/reproduce/x.py"


def made(*options, checks=(True,), doc=DOC):
    parser = argument_parser("x", doc)
    parser.add_argument("--max-steps", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    return claim(parser, parser.parse_args(options), 4, "said", "seen", *checks)


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [((True, True), "holds"), ((True, False), "holds in part"), ((False,), "does not hold")],
)
def test_verdict(checks, verdict):
    assert made(checks=checks)["verdict"] == verdict


def test_the_command_has_the_options_that_change_the_numbers():
    options = ("--output", "there", "--wandb", "disabled", "--accelerator", "cpu", "--seed", "0")
    assert made(*options)["command"] == "python recipes/reproduce/x.py"
    assert made("--max-steps", "5", "--full")["command"] == "python recipes/reproduce/x.py --max-steps 5 --full"


@pytest.mark.parametrize(("checks", "doc"), [((), DOC), ((True,), "A recipe without a command.")])
def test_a_claim_without_checks_or_command_is_refused(checks, doc):
    with pytest.raises(ValueError, match="must have checks and a command"):
        claim(argparse.ArgumentParser(description=doc), argparse.Namespace(), 1, "said", "seen", *checks)

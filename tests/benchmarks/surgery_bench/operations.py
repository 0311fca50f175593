"""The surgeries of the table, each on a copy of one model: applied, one training step, removed or undone."""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

import lightning_trainingkit as kit
from lightning_trainingkit.callbacks.noise.surgery import NoiseSurgery
from lightning_trainingkit.nn import replace_activation, replace_normalization
from surgery_bench.small_fit import Net, fit_one_step, output_of

__all__ = ["OPERATIONS", "Outcome", "perform"]


@dataclass
class Outcome:
    """What became of one surgery on one model.

    Args:
        state: ``done``, ``refused`` or ``failed``.
        places: Number of changed places.
        left: Number of places that the surgery named and left as they are.
        reason: The error, or why the first place was left.
    """

    state: str
    places: int = 0
    left: int = 0
    reason: str = ""


class BrokenPromiseError(Exception):
    """A surgery was done and did not keep what it promises."""


@dataclass
class Plain:
    """A model without surgery, its batch, and its outputs in eval mode and in a training step."""

    net: Net
    batch: Any
    output: list[Tensor] = field(default_factory=list)
    trained: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = list(self.net.state_dict())
        self.output = output_of(self.net, self.batch)
        copied = copy.deepcopy(self.net).train()
        torch.manual_seed(0)
        copied.training_step(self.batch, 0)
        self.trained = copied.outputs


def noise(make: Callable[[], NoiseSurgery]) -> Callable[[Plain], Outcome]:
    """Noise for one step. It must change the outputs of the step, keep keys and eval outputs, and be gone after."""

    def operate(plain: Plain) -> Outcome:
        net, callback = copy.deepcopy(plain.net), make()
        during: dict[str, Any] = {}

        def look(module: Net) -> None:
            during["keys"] = list(module.state_dict())
            during["output"] = output_of(module, plain.batch)

        with unchanged_if_refused(plain, net):
            fit_one_step(net, plain.batch, [callback], look)
        expect(during["keys"] == plain.keys, "keys differ while there is noise")
        equal(during["output"], plain.output, "eval output while there is noise")
        differ = (not torch.equal(*pair) for pair in zip(net.outputs, plain.trained, strict=True))
        expect(any(differ), "the noise changes no output in training")
        same_as_fresh(plain, net, copy.deepcopy(plain.net))
        left = [row for row in callback.report if row.after.startswith("left as it is")]
        return Outcome("done", len(callback.report) - len(left), len(left), left[0].after if left else "")

    return operate


def penalty(plain: Plain) -> Outcome:
    """A penalty for one step. It must be logged, and leave the model as a fresh one."""
    net, callback = copy.deepcopy(plain.net), kit.WeightPenalty(l1=1e-5, l2=1e-5, verbose=False)
    chosen: list[int] = []
    with unchanged_if_refused(plain, net):
        logged = fit_one_step(net, plain.batch, [callback], lambda _: chosen.append(len(callback._named)))
    expect("penalty/value" in logged, "the penalty is not logged")
    same_as_fresh(plain, net, copy.deepcopy(plain.net))
    return Outcome("done", chosen[0])


def activation(to: str) -> Callable[[Plain], Outcome]:
    """Other activations: undone before training, and by the callback for one step."""

    def operate(plain: Plain) -> Outcome:
        net, callback = copy.deepcopy(plain.net), kit.ReplaceActivation(to, verbose=False)
        with unchanged_if_refused(plain, net):
            keys = undone(plain, net, lambda model: replace_activation(model, to))
            fit_one_step(net, plain.batch, [callback])
        expect(set(net.state_dict()) == keys, "keys differ from those that were said")
        if to not in ("prelu", "maxout"):
            expect(list(net.state_dict()) == plain.keys, "keys of a swap differ")
        fresh = copy.deepcopy(plain.net)
        replace_activation(fresh, to)
        same_as_fresh(plain, net, fresh)
        layers = [row for row in callback.report if not row.before.startswith(("Conv", "Linear", "BatchNorm"))]
        return Outcome("done", len(layers))

    return operate


def normalization(to: str, *, fold: bool = False) -> Callable[[Plain], Outcome]:
    """Another normalisation: undone before training, then one step."""

    def operate(plain: Plain) -> Outcome:
        net = copy.deepcopy(plain.net)
        before = dict(net.named_modules())
        with unchanged_if_refused(plain, net):
            keys = undone(plain, net, lambda model: replace_normalization(model, to, fold=fold))
            replace_normalization(net, to, fold=fold)
        if fold:
            equal(output_of(net, plain.batch), plain.output, "eval output after folding", tolerance=1e-3)
        places = sum(before.get(name) is not each for name, each in net.named_modules() if name in before)
        fit_one_step(net, plain.batch, [])
        expect(set(net.state_dict()) == keys, "keys differ from those that were said")
        return Outcome("done", places)

    return operate


OPERATIONS: Mapping[str, Callable[[Plain], Outcome]] = {
    "ELU": activation("elu"),
    "PReLU": activation("prelu"),
    "Maxout": activation("maxout"),
    "group norm": normalization("group"),
    "folded": normalization("none", fold=True),
    "DropoutOverride": noise(lambda: kit.DropoutOverride({"*": 0.2}, verbose=False)),
    "DropConnect": noise(lambda: kit.DropConnect({"*": 0.2}, verbose=False)),
    "StochasticDepth row": noise(lambda: kit.StochasticDepth(0.5, verbose=False)),
    "StochasticDepth batch": noise(lambda: kit.StochasticDepth(0.5, mode="batch", verbose=False)),
    "FractionalMaxPool": noise(lambda: kit.FractionalMaxPool(verbose=False)),
    "WeightPenalty": penalty,
}
"""The columns of the table."""


def perform(name: str, plain: Plain) -> Outcome:
    """Do one surgery on a copy of a model.

    A ValueError or TypeError with a rule in it ("must") is a refusal. Any other exception is a failure.
    """
    torch.manual_seed(0)
    try:
        return OPERATIONS[name](plain)
    except Exception as error:
        text = " ".join(str(error).split())
        refused = type(error) in (ValueError, TypeError) and re.match(r"`[^`]+` (or `[^`]+` )?must ", text)
        return (
            Outcome("refused", reason=text) if refused else Outcome("failed", reason=f"{type(error).__name__}: {text}")
        )


class unchanged_if_refused:  # noqa: N801
    """After an error in the block, the model must be as it was. The first batch may have trained it."""

    def __init__(self, plain: Plain, net: Net) -> None:
        self.plain, self.net = plain, net

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, TypeError)):
            trained = "the first batch" in str(error)
            same_as_fresh(self.plain, self.net, copy.deepcopy(self.plain.net) if trained else self.plain.net)


def undone(plain: Plain, net: Net, change: Callable[[nn.Module], Any]) -> set[str]:
    """Change a model and undo the change. Return the keys that the change has promised."""
    texts = [repr(each) for each in net.modules()]
    done = change(net)
    promised = (set(plain.keys) - set(done.removed_keys)) | set(done.new_keys)
    expect(set(net.state_dict()) == promised, "keys differ from those that were said")
    done.undo()
    expect([repr(each) for each in net.modules()] == texts, "layers differ after `undo`")
    same_state(net, plain.net, "after `undo`")
    equal(output_of(net, plain.batch), plain.output, "eval output after `undo`")
    return promised


def same_as_fresh(plain: Plain, net: Net, fresh: Net) -> None:
    """Compare keys and eval output with those of a fresh model with the same weights."""
    expect(list(net.state_dict()) == list(fresh.state_dict()), "keys differ from those of a fresh model")
    replaced = [{name for name, each in model.named_modules() if "forward" in vars(each)} for model in (net, plain.net)]
    expect(replaced[0] <= replaced[1], "a forward stays on a layer")  # timm's FasterNet replaces some by itself
    if fresh is not plain.net:
        fresh.load_state_dict(net.state_dict())
    else:
        same_state(net, fresh, "after a refusal")
    equal(output_of(net, plain.batch), output_of(fresh, plain.batch), "eval output beside a fresh model")


def same_state(net: nn.Module, other: nn.Module, when: str) -> None:
    state, expected = net.state_dict(), other.state_dict()
    expect(list(state) == list(expected), f"keys differ {when}")
    for key, value in state.items():
        equal([value], [expected[key]], f"{key} {when}")


def equal(got: list[Tensor], expected: list[Tensor], what: str, tolerance: float = 0.0) -> None:
    """Compare tensors to the last bit, or to a share of the largest number."""
    for one, other in zip(got, expected, strict=True):
        largest = float(other.abs().max()) if tolerance and other.numel() else 0.0
        try:
            assert_close(one, other, rtol=0, atol=tolerance * largest, equal_nan=True)
        except AssertionError as error:
            raise BrokenPromiseError(f"{what} differs: {error}") from error


def expect(kept: bool, fault: str) -> None:
    if not kept:
        raise BrokenPromiseError(fault)

"""Average over passes from several sources: members of an ensemble, random masks, views of the images."""

from collections.abc import Iterator, Sequence
from itertools import groupby, product
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lightning_trainingkit.functional import _check
from lightning_trainingkit.functional._view_sets import same_step
from lightning_trainingkit.functional.averaging import AVERAGES, EXACT_EARLY_EXIT, check_weights, log_softmax
from lightning_trainingkit.nn.averaging.call_arguments import Arguments, CallArguments
from lightning_trainingkit.nn.averaging.outputs import check_logits, refuse_probabilities
from lightning_trainingkit.nn.averaging.running_average import RunningAverage, check_classes
from lightning_trainingkit.nn.averaging.sources import Around, Call, Source, Together, Viewing
from lightning_trainingkit.nn.averaging.vectorized import check_vectorize
from lightning_trainingkit.nn.averaging.views import SharedSteps, ViewSteps, view_steps

__all__ = ["Averaging", "check_settings"]

_FEW = {"cpu": 24}
_FEW_ELSEWHERE = 32
"""A call of up to so many samples takes about as long as a call of a few samples."""

_ORDER = ("members", "masks", "views")  # all passes of a member in a row, since it may have to be moved to the device


class _Outer(NamedTuple):
    """One combination of member and mask, or all members together."""

    names: Sequence[str]
    weights: Sequence[float]
    call: Call
    together: bool = False
    """Whether the call returns the outputs ``(K, N, C)`` of several members."""
    apart: Sequence["_Outer"] = ()
    """Calls of single members, to make instead of ``call``."""


class Averaging:
    """Call a module once for each combination of the sources' passes, and average the outputs.

    Passes run one after the other, and memory does not grow with their number. The order of the sources does not
    matter. The module does not change. README.md in this folder explains the design.

    Args:
        sources: Sources of passes, at most one of each kind.
        average: ``probabilities``, ``logits``, ``geometric`` or ``votes``, see ``functional.averaging``.
        early_exit: Skip a sample's remaining passes once they cannot change its argmax. Its log-probabilities then
            average the passes made.
        max_batch: Most samples in one call of the module. A larger batch is cut into parts of this size. Views of a
            smaller batch share a call, as many as fit.

    Raises:
        ValueError: If the arguments do not fit each other.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        average: str = "probabilities",
        early_exit: bool = False,
        max_batch: int | None = None,
    ) -> None:
        check_settings(average, early_exit, max_batch)
        kinds = [source.kind for source in sources]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"`sources` must hold one of each kind, got {kinds}. Put all {kind} into one.")
        if early_exit and "masks" in kinds:
            raise ValueError("`early_exit` must be False with random masks, got True: their entropy needs every pass.")
        for source in sources:
            check_weights("weights", source.weights, len(source.names))
        self.sources = sorted(sources, key=lambda source: _ORDER.index(source.kind))
        self.average, self.early_exit, self.max_batch = average, early_exit, max_batch
        passes = list(product(*([(s.names[i], s.weights[i]) for i in _counted(s)] for s in self.sources)))
        self.names = [" x ".join(name for name, _ in each) for each in passes]
        """Name of each pass, in the order of ``each_pass``. Passes of weight 0 are left out."""
        self.weights = [prod(weight for _, weight in each) for each in passes]
        """Weight of each pass."""
        self.expected_entropy: Tensor | None = None
        """Mean entropy in nats of the passes of the last call, shape ``(N,)``. None without random masks."""
        self.samples = 0
        """Number of samples so far."""
        self.passes_made = 0
        """Number of passes so far, summed over samples."""
        self._whole = sum(self.weights)
        self._keep_entropy = "masks" in kinds
        self._around = [cast(Around, source) for source in self.sources if source.kind != "views"]
        together = [source for source in self._around if isinstance(source, Together)]
        beside = {"early_exit": early_exit, "max_batch": max_batch, "random masks": "masks" in kinds}
        check_vectorize(any(source.vectorize for source in together), beside)
        self._together = together[0] if together and not any(beside.values()) else None
        self._views = [ViewSteps(1.0)]
        for source in self.sources:
            if source.kind == "views":
                self._views = view_steps(
                    [(source.weights[i], cast(Viewing, source).views[i]) for i in _counted(source)]
                )
        # The kit's views take the last two dimensions for height and width; a user's function may differ.
        self._by_place = any(same_step(step, step) for view in self._views for step in view.steps)
        self._checked: set[str] = set()
        self._classes: dict[str, int] = {}
        self._writes = False  # whether the module was seen to write into its arguments

    @property
    def passes(self) -> int:
        """Number of passes a sample without an early exit."""
        return len(self.names)

    def __call__(self, call: Call, module: nn.Module, arguments: Arguments) -> Tensor:
        """Return the log-probabilities ``(N, C)`` of the average.

        Args:
            call: Calls the module once.
            module: The module to call.
            arguments: Positional and named arguments.
        """
        batch = self._batch(arguments)
        self.samples += batch.size
        parts = [RunningAverage(part, self.average, self._whole, self._keep_entropy) for part in self._cut(batch)]
        for outer in self._outers(call):
            for part in parts:
                self._advance(part, outer, module)
            if all(part.stopped for part in parts):
                break
        entropies = [part.entropy for part in parts if part.entropy is not None]
        self.expected_entropy = torch.cat(entropies) if entropies else None
        finished = [part.finish() for part in parts]
        return torch.cat(finished) if len(finished) > 1 else finished[0]

    def each_pass(self, call: Call, module: nn.Module, arguments: Arguments) -> Iterator[Tensor]:
        """Yield the log-probabilities ``(N, C)`` of each pass over the whole batch, in the order of ``names``."""
        parts = self._cut(self._batch(arguments))
        for outer in self._outers(call, one_by_one=True):
            made = [(part, SharedSteps()) for part in parts]
            for view in self._views:
                yield torch.cat([self._call(outer, module, each.view(part, view)) for part, each in made])

    def _batch(self, arguments: Arguments) -> CallArguments:
        batch = CallArguments(arguments)
        if self._by_place:
            batch.refuse_channels_last()
        return batch

    def _cut(self, batch: CallArguments) -> list[CallArguments]:
        if self.max_batch is None or batch.size <= self.max_batch:
            return [batch]
        return [batch.take(slice(start, start + self.max_batch)) for start in range(0, batch.size, self.max_batch)]

    def _outers(self, call: Call, one_by_one: bool = False) -> Iterator[_Outer]:
        together = None if one_by_one else self._together
        if together is None or (len(self._views) > 1 and not together.vectorize):  # each member sees all views in a row
            yield from self._one_by_one(call)
            return
        counted = _counted(together)
        names, weights = [together.names[k] for k in counted], [together.weights[k] for k in counted]
        # The first call shows whether a member writes into its arguments. Its sums are rounded like later sums.
        safe = together.vectorize or (self._checked and not self._writes)
        yield _Outer(names, weights, together.together(call), True, () if safe else [*self._one_by_one(call)])

    def _one_by_one(self, call: Call) -> "Iterator[_Outer]":
        for indices in product(*map(_counted, self._around)):
            chosen = list(zip(self._around, indices, strict=True))
            wrapped = call
            for source, index in reversed(chosen):
                wrapped = source.around(index, wrapped)
            name = " x ".join(source.names[index] for source, index in chosen)
            yield _Outer([name], [prod(source.weights[index] for source, index in chosen)], wrapped)

    def _advance(self, part: RunningAverage, outer: _Outer, module: nn.Module) -> None:
        """Add the passes of one outer pass with all views."""
        done, made = 0, SharedSteps()
        while done < len(self._views) and not part.stopped:
            batch = part.batch
            views = self._views[done : done + self._together_now(part, outer, done)]
            done += len(views)
            viewed = [(view.weight, made.view(batch, view)) for view in views]
            groups = [list(group) for _, group in groupby(viewed, key=_shapes)] if len(viewed) > 1 else [viewed]
            for group in groups:
                (weight, first), *rest = group
                found = self._call(outer, module, first.join([other for _, other in rest]))
                if not rest and not outer.together:
                    part.add(found, weight * outer.weights[0], outer.names[0])
                    self.passes_made += batch.size
                    continue
                if rest:
                    found = found.view(len(group), batch.size, found.shape[-1])
                # The outputs of several views, or of several members with one view.
                part.add_all(found, [share * each for share in outer.weights for each, _ in group], outer.names[0])
                self.passes_made += batch.size * len(found)
            if self.early_exit:
                part.leave_out_settled(self.passes)

    def _together_now(self, part: RunningAverage, outer: _Outer, done: int) -> int:
        """Number of the remaining views that share the next call of the module."""
        size = max(1, part.batch.size)
        if not self.early_exit:
            return max(1, (self.max_batch or 0) // size)
        if part.may_settle:  # views of few samples share a call, which takes about as long as a smaller call
            few = min(part.size, _FEW.get(part.batch.device.type, _FEW_ELSEWHERE))
            return max(1, min(few, self.max_batch or few) // size)
        remaining, number = part.remaining, 0
        for view in self._views[done : done + max(1, (self.max_batch or 0) // size)]:
            remaining, number = remaining - view.weight * outer.weights[0], number + 1
            if part.settles_below(remaining):  # from here on samples may leave
                break
        return number

    def _call(self, outer: _Outer, module: nn.Module, batch: CallArguments) -> Tensor:
        """Return the log-probabilities of one call, at least float32: ``(N, C)``, or ``(K, N, C)`` of all members."""
        if not outer.apart:
            return log_softmax(self._output(outer, module, batch))
        passes: list[Tensor] = []
        for each in outer.apart:
            passes.append(self._output(each, module, batch).clone())  # a forward may return one tensor each time
            check_classes(passes[-1], passes[0], each.names[0])
        return log_softmax(torch.stack(passes))

    def _output(self, outer: _Outer, module: nn.Module, batch: CallArguments) -> Tensor:
        new = batch.size > 0 and not self._checked.issuperset(outer.names)  # an empty batch shows nothing
        kept = batch.copy() if new or self._writes else batch  # a module that writes would change the next pass's input
        out: Tensor = outer.call(module, kept.arguments if self._writes else batch.arguments)
        check_logits(out, (len(outer.names), batch.size) if outer.together else (batch.size,))
        known = self._classes.setdefault(outer.names[0], out.shape[-1])
        if known != out.shape[-1]:
            raise ValueError(
                f"`target` must return the same number of classes in each call, got {known} and {out.shape[-1]}. An "
                "argument with as many entries as samples is cut with the samples: give it another form."
            )
        if new:
            refuse_probabilities(out)
            if not self._writes and not batch.equals(kept):
                self._writes = True
                batch.restore(kept)
            self._checked.update(outer.names)
        return out if out.dtype in (torch.float32, torch.float64) else out.float()


def check_settings(average: str, early_exit: bool, max_batch: int | None) -> None:
    """Raise ValueError if the settings of an average do not fit each other."""
    _check.one_of("average", average, AVERAGES, "The default is 'probabilities'.")
    _check.flag("early_exit", early_exit)
    if early_exit and average not in EXACT_EARLY_EXIT:
        raise ValueError(
            f"`early_exit` must be False with average={average!r}, got True: one pass can change its argmax by any "
            f"amount, so no early exit is exact. It is for {' and '.join(EXACT_EARLY_EXIT)}."
        )
    if max_batch is not None:
        _check.integer("max_batch", max_batch, "Leave it out for whole batches.", least=1)


def _counted(source: Source) -> list[int]:
    """Indices of the passes with a weight above 0."""
    return [index for index, weight in enumerate(source.weights) if weight]


def _shapes(viewed: tuple[float, CallArguments]) -> list[torch.Size]:
    return viewed[1].shapes

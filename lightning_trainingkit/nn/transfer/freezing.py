"""Let some parameters of a module train, and keep the rest as it is."""

from collections.abc import Collection

from torch import nn

__all__ = ["ParameterFreezer"]


class ParameterFreezer:
    """Open and close the parameters that a module was found to train; those it has frozen itself stay frozen.

    A closed parameter has ``requires_grad=False`` and no gradient, so that no optimizer moves or decays it. What is
    closed as a whole is in eval mode, BatchNorm, dropout and stochastic depth in it. A module without parameters
    follows the next one that has some, in order of definition: dropout in front of a closed layer is off, dropout in
    front of an open head on. One with buffers alone (a BatchNorm without scale) follows the one before.

    Parts that the module has frozen as a whole itself are in eval mode too.

    Args:
        module: The module. Nothing is changed yet.
        skip: Types of submodules whose mode is left alone.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> freezer = ParameterFreezer(net)
        >>> freezer.train_only(list(net[2].parameters()))
        >>> freezer.hold_eval_mode()
        >>> [name for name, parameter in net.named_parameters() if parameter.requires_grad], net[1].training
        (['2.weight', '2.bias'], False)
    """

    def __init__(self, module: nn.Module, skip: tuple[type[nn.Module], ...] = ()) -> None:
        self.parameters = [each for each in module.parameters() if each.requires_grad]
        skipped = {part for each in module.modules() if isinstance(each, skip) for part in each.modules()}
        self._modules = [each for each in module.modules() if each not in skipped]
        self._closed: list[nn.Module] = []
        self._switched: set[nn.Module] = set()  # which were in training mode when they were found

    def train_only(self, parameters: Collection[nn.Parameter]) -> None:
        """Let these parameters train, and close all others; ``hold_eval_mode`` then switches the modes."""
        chosen = set(parameters)
        for each in self.parameters:
            each.requires_grad_(each in chosen)
            if each not in chosen:
                each.grad = None
        closed = self._find_closed()
        for module in self._switched - set(closed):
            module.training = True
        self._switched &= set(closed)
        self._closed = closed

    def hold_eval_mode(self) -> None:
        """Switch what is closed to eval mode, at the start and whenever something has switched it back."""
        for module in self._closed:
            if module.training:
                module.training = False
                self._switched.add(module)

    @property
    def holds_eval_mode(self) -> bool:
        """Whether all that is closed is in eval mode."""
        return not any(module.training for module in self._closed)

    def undo(self, *, modes: bool = True) -> None:
        """Open everything and put the modes back, if ``modes``."""
        for each in self.parameters:
            each.requires_grad_(True)
        for module in self._switched if modes else ():
            module.training = True
        self._switched, self._closed = set(), []

    def _find_closed(self) -> list[nn.Module]:
        closed: dict[nn.Module, bool] = {}
        waiting: list[nn.Module] = []
        before = False
        for module in self._modules:
            if module in closed:
                continue
            mine = list(module.parameters())
            if mine:
                shut = not any(each.requires_grad for each in mine)
                if shut:
                    closed.update(dict.fromkeys(module.modules(), True))
                else:
                    closed[module] = False
                if shut or next(module.parameters(recurse=False), None) is not None:
                    closed.update(dict.fromkeys(waiting, shut))
                    waiting, before = [], shut
            elif next(module.buffers(), None) is not None:
                closed[module] = before
            else:
                waiting.append(module)
        closed.update(dict.fromkeys(waiting, before))
        return [module for module in self._modules if closed[module]]

"""Freeze and unfreeze parameters of a module."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["ParameterFreezer"]


class ParameterFreezer:
    """Freeze and unfreeze the parameters of a module. Parameters that the user froze stay frozen.

    - **Frozen parameters** have ``requires_grad=False`` and no gradient, so that no optimizer moves or decays them.
    - **Wholly frozen submodules** are in eval mode, with the BatchNorm, dropout and stochastic depth in them. This
      includes submodules that the user froze.
    - **Submodules without parameters** follow the next submodule with parameters, in the order of definition. Dropout
      before a frozen layer is off, dropout before a trainable head is on.
    - **Submodules with buffers alone**, such as a BatchNorm without scale, follow the submodule before them.

    Args:
        module: The module. Only the methods change it.
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
        self._frozen: list[nn.Module] = []
        self._switched: set[nn.Module] = set()  # frozen submodules that were in training mode

    def train_only(self, parameters: Collection[nn.Parameter]) -> None:
        """Unfreeze these parameters and freeze all others. ``hold_eval_mode`` then switches the modes."""
        chosen = set(parameters)
        for each in self.parameters:
            each.requires_grad_(each in chosen)
            if each not in chosen:
                each.grad = None
        frozen = self._find_frozen()
        for module in self._switched - set(frozen):
            module.training = True
        self._switched &= set(frozen)
        self._frozen = frozen

    def hold_eval_mode(self) -> None:
        """Switch frozen submodules to eval mode, at the start and whenever something has switched them back."""
        for module in self._frozen:
            if module.training:
                module.training = False
                self._switched.add(module)

    @property
    def holds_eval_mode(self) -> bool:
        """Whether all frozen submodules are in eval mode."""
        return not any(module.training for module in self._frozen)

    @contextmanager
    def trying(self, parameters: Collection[nn.Parameter]) -> Iterator[None]:
        """Train only these parameters for a while, then restore flags, gradients and modes."""
        before = [(each, each.requires_grad, each.grad) for each in self.parameters]
        try:
            self.train_only(parameters)
            self.hold_eval_mode()
            yield
        finally:
            self.train_only([each for each, flag, _ in before if flag])
            self.hold_eval_mode()
            for each, _, grad in before:
                each.grad = grad

    def undo(self, *, modes: bool = True) -> None:
        """Unfreeze all parameters, and restore the modes if ``modes`` is True."""
        for each in self.parameters:
            each.requires_grad_(True)
        for module in self._switched if modes else ():
            module.training = True
        self._switched, self._frozen = set(), []

    def _find_frozen(self) -> list[nn.Module]:
        is_frozen: dict[nn.Module, bool] = {}
        without_parameters: list[nn.Module] = []  # until the next submodule with parameters
        frozen_before = False
        for module in self._modules:
            if module in is_frozen:
                continue
            parameters = list(module.parameters())
            if parameters:
                frozen = not any(each.requires_grad for each in parameters)
                if frozen:
                    is_frozen.update(dict.fromkeys(module.modules(), True))
                else:
                    is_frozen[module] = False
                if frozen or next(module.parameters(recurse=False), None) is not None:
                    is_frozen.update(dict.fromkeys(without_parameters, frozen))
                    without_parameters, frozen_before = [], frozen
            elif next(module.buffers(), None) is not None:
                is_frozen[module] = frozen_before
            else:
                without_parameters.append(module)
        is_frozen.update(dict.fromkeys(without_parameters, frozen_before))
        return [module for module in self._modules if is_frozen[module]]

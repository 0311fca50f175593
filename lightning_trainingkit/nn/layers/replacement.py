"""Put modules in the place of others in a finished model, and put the old ones back."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_trainingkit.nn.layers.replace import MARK
from lightning_trainingkit.nn.structure.names import join, plain_name, plain_names

__all__ = ["Replacement", "refuse_hooks"]


class Replacement:
    """New modules for places of a finished model. ``put`` puts them in, and ``undo`` puts the old ones back.

    Args:
        model: The model. It stays as it is until ``put``.
        modules: Name of an old module to the new one. A module with several names is replaced under all of them.
        by: Name of the surgery.

    Raises:
        ValueError: If the model holds an old module outside of its registered children, too, or if one has hooks.
    """

    def __init__(self, model: nn.Module, modules: Mapping[str, nn.Module], by: str) -> None:
        self.by = by
        names = plain_names(dict(model.named_modules(remove_duplicate=False)))
        self._pairs = [(names[name], new) for name, new in modules.items()]
        for name in modules:
            _refuse_hidden(model, name, names[name], by)
            refuse_hooks(name, names[name], by)
        new_of = {id(old): new for old, new in self._pairs}
        places = [(name, each, new_of[id(each)]) for name, each in names.items() if id(each) in new_of]
        before = {join(name, key): value.shape for name, old, _ in places for key, value in old.state_dict().items()}
        after = {join(name, key): value.shape for name, _, new in places for key, value in new.state_dict().items()}
        self.removed_keys = [key for key in before if key not in after]
        """Keys of the state dict that go."""
        self.new_keys = [key for key in after if key not in before]
        """New keys of the state dict."""
        self.resized_keys = [key for key in before if after.get(key, before[key]) != before[key]]
        """Keys of the state dict whose tensors get another shape."""
        self.added_parameters = sum(
            sum(each.numel() for each in new.parameters()) - sum(each.numel() for each in old.parameters())
            for old, new in self._pairs
        )
        """Number of parameters that the model gains."""
        self._shapes = {**dict.fromkeys(self.removed_keys), **after}
        self._places: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []
        self._versions: list[tuple[nn.Parameter, int]] = []
        self._model = model

    @property
    def rebuilds(self) -> bool:
        """Whether keys or shapes of the state dict differ from the old ones."""
        return bool(self.removed_keys or self.new_keys or self.resized_keys)

    def differences(self, state: Mapping[str, Tensor]) -> list[str]:
        """List the keys of the replaced places in which a state dict differs from the changed model."""
        shapes = {plain_name(key): value.shape for key, value in state.items()}
        return [key for key, shape in self._shapes.items() if shapes.get(key) != shape]

    def put(self) -> None:
        """Put the new modules in, with the modes of the old ones."""
        for old, new in self._pairs:
            new.train(old.training)
            vars(new)[MARK] = self.by  # it is copied and pickled with the layer
        self._places = _put(self._model, self._pairs)
        self._versions = [(each, each._version) for _, new in self._pairs for each in new.parameters()]

    @property
    def is_changed(self) -> bool:
        """Whether new parameters were trained or loaded."""
        return any(parameter._version != version for parameter, version in self._versions)

    def undo(self) -> None:
        """Put the old modules back, with the modes and on the device of the new ones.

        Raises:
            ValueError: If new parameters were trained or loaded, which would be lost.
        """
        if self.is_changed:
            raise ValueError(
                f"`undo` must be called before the new layers of {self.by} are trained or loaded, got changed weights, "
                "which would be lost. Build the model again."
            )
        for parent, key, old, new in self._places:
            if parent._modules.get(key) is new:
                parent._modules[key] = old
        for old, new in self._pairs:
            old.train(new.training)
            tensor = next(iter((*new.parameters(), *new.buffers())), None)
            if tensor is not None:
                old.to(tensor.device)
        self._places, self._versions = [], []


def _put(
    model: nn.Module, pairs: list[tuple[nn.Module, nn.Module]]
) -> list[tuple[nn.Module, str, nn.Module, nn.Module]]:
    new_of = {id(old): (old, new) for old, new in pairs}
    places = []
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is not None and id(child) in new_of:
                places.append((parent, key, *new_of[id(child)]))
    for parent, key, _, new in places:
        parent._modules[key] = new  # in place, so that the order of the children stays
    return places


def refuse_hooks(name: str, old: nn.Module, by: str) -> None:
    """Raise ValueError if hooks of a module would be lost, among them the ones that compute its weights."""
    hooks = (old._forward_hooks, old._forward_pre_hooks, old._backward_hooks, old._backward_pre_hooks)
    if any(hooks):
        raise ValueError(
            f"`{name}` must have no hooks for {by}, got {sum(map(len, hooks))}, which would be lost. Register them "
            "after the layers are replaced."
        )


def _refuse_hidden(model: nn.Module, name: str, old: nn.Module, by: str) -> None:
    """Raise ValueError if the model holds a module outside of its registered children."""
    for parent_name, parent in model.named_modules():
        for key, value in vars(parent).items():
            if key.startswith("_"):
                continue
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if any(each is old for each in held):
                where = f"{plain_name(parent_name)}.{key}".strip(".")
                raise ValueError(
                    f"`{name}` must be held by registered children alone for {by}, got a module that `{where}` holds "
                    "too. Use nn.ModuleList or nn.ModuleDict there."
                )

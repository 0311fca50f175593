"""The last layer of a model, and a new one for other classes."""

from typing import Any

import torch
from torch import fx, nn
from torch.nn.functional import linear
from torch.nn.parameter import is_lazy

from lightning_trainingkit.functional import _check
from lightning_trainingkit.nn.structure.call_order import call_order, layers_of
from lightning_trainingkit.nn.structure.modes import evaluating
from lightning_trainingkit.nn.structure.tracing import NORMS, Trace, UntraceableError

__all__ = ["find_head", "find_heads", "replace_head"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_heads(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Find the names of the last layers of a module, whose output no other layer takes in evaluation.

    A layer is a linear or convolutional layer, or another module with a matrix (a cosine classifier). Most models have
    one last layer; a model that classifies twice has two. If the forward cannot be traced, the last submodule with
    layers, in order of definition, is searched.

    Args:
        module: Any module; names are relative to it, and empty if it is a layer itself.
        skip: Types of submodules to leave out.

    Raises:
        ValueError: If the module has no layer, or features may leave through a forward hook, which no trace shows.

    Example:
        >>> find_heads(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.LogSoftmax(dim=1)))
        ['2']
    """
    if not layers_of(module, skip):
        kind = type(module).__name__
        raise ValueError(f"`module` must have a linear or convolutional layer, got {kind} without one. Add a head.")
    found = call_order(module, skip=skip)
    if found.hooked:
        raise ValueError(
            f"`module` must have a last layer that a trace of its forward shows, got {type(module).__name__}, whose "
            f"features may leave through a forward hook ({', '.join(found.hooked[:8])}). Give the layer itself, or a "
            "part of the module that is called as a whole."
        )
    return found.last or layers_of(module, skip)[-1:]


def find_head(module: nn.Module, *, skip: tuple[type[nn.Module], ...] = ()) -> str:
    """Find the name of the last layer of a module. Of several last layers, take the one that is called last.

    Args:
        module: Any module; names are relative to it, and empty if it is a layer itself.
        skip: Types of submodules to leave out.

    Raises:
        ValueError: If the module has no layer.

    Example:
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        '2'
    """
    return find_heads(module, skip=skip)[-1]


def replace_head(model: nn.Module, num_classes: int) -> str:
    """Replace the last layer of a classifier by a new one for other classes. All other layers stay bit for bit.

    The last layer is the one whose output no other layer takes, found by tracing the forward in eval mode.

    - **The new layer** has the same inputs, bias, device, dtype and mode, and torch's initialisation. It is trainable.
    - **Modules above it** whose ``num_classes`` was the old number get the new one.
    - **Classifiers that run in training alone** (Inception's auxiliary ones) keep their outputs.

    Args:
        model: Any classifier: torchvision's, timm's, or your own. It is changed in place.
        num_classes: Number of outputs ``C`` of the new layer.

    Returns:
        The name of the layer in ``model``.

    Raises:
        TypeError: If ``num_classes`` is no integer, the last layer is neither linear nor a plain convolution, or the
            model is a TorchScript module.
        ValueError: If ``num_classes`` is not positive, or no last layer can be replaced: the model has none or several,
            or it normalises the layer's output or joins it with other values.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18()
        >>> replace_head(model, num_classes=5)
        'fc'
        >>> model.fc
        Linear(in_features=512, out_features=5, bias=True)
    """
    num_classes = _check.integer("num_classes", num_classes, "Count the classes from 1.", least=1)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "`model` must be written in Python, got a TorchScript module, whose layers can't be replaced. "
            "Replace the head before `torch.jit.script`."
        )
    name, *others = find_heads(model)
    if others:
        raise ValueError(
            f"`model` must have one last layer, got {', '.join([name, *others])}. Replace them by hand: "
            "model.head = torch.nn.Linear(model.head.in_features, 5), say."
        )
    if not name:
        raise ValueError(f"`model` must hold its last layer, got the layer itself ({model}). Make a new one instead.")
    _check_alone(model, name)
    old = model.get_submodule(name)
    new = _layer(name, old, num_classes).train(old.training)
    outputs = getattr(old, "out_features", None) or getattr(old, "out_channels", None)
    # The same layer may sit in several places.
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, key, new)
    above = name.split(".")
    for depth in range(len(above)):
        parent = model.get_submodule(".".join(above[:depth]))
        if vars(parent).get("num_classes") == outputs:
            setattr(parent, "num_classes", num_classes)  # noqa: B010  (not an attribute of every Module)
    return name


def _check_alone(model: nn.Module, name: str) -> None:
    """Raise ValueError if the layer's outputs meet other values or a norm: then it is no classifier."""
    try:
        with evaluating(model):
            trace = Trace(model)
    except UntraceableError:
        return
    behind = [node for node, target in trace.calls.items() if target == name]
    from_input = {node for node in trace.graph.nodes if node.op == "placeholder"}
    for node in trace.graph.nodes:
        if not from_input.isdisjoint(node.all_input_nodes):
            from_input.add(node)
    for node in behind:  # the list grows in the loop
        for user in node.users:
            # A named tuple holds outputs, and does not join them.
            together = isinstance(user.target, type) and issubclass(user.target, tuple | dict)
            if user.op == "output" or together or user in behind:
                continue
            called = model.get_submodule(str(user.target)) if user.op == "call_module" else None
            met = [each for each in user.all_input_nodes if each not in behind]
            others = [f"the output of {each.target}" for each in met if each in from_input]
            others += [f"`{each.target}`" for each in met if _is_of_classes(model, each)]
            if others or isinstance(called, NORMS):
                meets = "a norm layer" if isinstance(called, NORMS) else others[0]
                raise ValueError(
                    f"`model` must end in its last layer, got `{name}`, the last layer called, whose output "
                    f"meets {meets}. If the model was made without a classifier, add one; if it has several, replace "
                    "them by hand."
                )
            behind.append(user)


def _is_of_classes(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a tensor that the model holds, with more than one entry, such as a scale for each class."""
    if node.op != "get_attr":
        return False
    path, _, last = str(node.target).rpartition(".")
    tensor = getattr(model.get_submodule(path), last)
    return isinstance(tensor, torch.Tensor) and tensor.numel() > 1


def _layer(name: str, old: Any, outputs: int) -> nn.Module:
    """Make a layer with the inputs of the old layer."""
    if is_lazy(old.weight):
        raise ValueError(
            f"`model` must know its shapes, got a lazy last layer, `{name}`. Call the model once on a batch before."
        )
    options: dict[str, Any] = {
        "bias": old.bias is not None,
        "device": old.weight.device,
        "dtype": old.weight.dtype,
    }
    if isinstance(old, nn.Linear) and _multiplies(old):
        return nn.Linear(old.in_features, outputs, **options)
    for kind in _CONVOLUTIONS:
        if isinstance(old, kind) and old.groups == 1:
            same = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            return kind(old.in_channels, outputs, **{key: getattr(old, key) for key in same}, **options)
    raise TypeError(
        f"`model` must end in a linear layer or a plain convolution, got {old} as `{name}`. Replace it by hand."
    )


@torch.no_grad()
def _multiplies(layer: nn.Linear) -> bool:
    """Whether a subclass of ``nn.Linear`` computes a linear layer. A cosine classifier doesn't."""
    if type(layer).forward is nn.Linear.forward or layer.weight.is_meta:
        return True
    x = torch.linspace(-1, 2, 2 * layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)
    x = x.view(2, layer.in_features)
    return torch.allclose(layer.forward(x), linear(x, layer.weight, layer.bias), rtol=1e-2, atol=1e-3)

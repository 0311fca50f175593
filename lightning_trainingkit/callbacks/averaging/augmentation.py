"""Average the outputs over several views of each image at test time."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.averaging.averaging_callback import AveragingCallback
from lightning_trainingkit.nn.averaging.averaged import Views
from lightning_trainingkit.nn.averaging.sources import Source

__all__ = ["TestTimeAugmentation"]


class TestTimeAugmentation(AveragingCallback):
    r"""Average the target's outputs over views of each image: flips, crops, shifts, scales, rotations.

    In the chosen stages the target returns log-probabilities ``(N, C)``,
    :math:`\log \sum_k w_k \, \mathrm{softmax}(f(v_k(x)))`. Softmax, argmax, cross-entropy and metrics in the user's
    step stay right. The module comes back unchanged.

    - **Images** are all 4-d tensors of floats or bytes, ``(N, C, H, W)``, in the target's arguments.
    - **Together** with ``EnsembleAverage`` and ``MonteCarloDropout`` on the same target the passes multiply. The order
      of the callbacks does not matter.
    - **Use** views that training has shown, such as its flips and shifts. Other views can lower the accuracy.

    README.md in this folder lists all views by name, and the limits.

    Args:
        views: A set by name, such as ``"flip"`` or ``"ten_crop(224)"``, a function of images ``(N, C, H, W)``, or a
            list of these to compose. A function's view is added to the unchanged images. A list inside the list holds
            single views. See ``functional.views.make_views``.
        target: Name of the submodule that takes the images and returns logits ``(N, C)``; None for the module itself.
        average: ``"probabilities"``, ``"logits"`` (``"geometric"`` is the same average, normalised) or ``"votes"``.
        early_exit: Skip a sample's remaining passes once they cannot change its argmax, so that the accuracy stays the
            same. Its probabilities average the passes made. Logs the saved share as ``test/passes_saved``. Only for
            ``"probabilities"`` and ``"votes"``, where it is exact.
        max_batch: Most images in one call of the target. Larger batches are cut, with every argument whose first
            dimension is the number of images. Views of smaller batches share a call. None: one call for each view.
        stages: Some of ``"validate"``, ``"test"``, ``"predict"``. With ``"validate"`` each validation of a fit costs
            all passes.
        output: ``"auto"`` refuses outputs that the step of the first batch does not use as class scores (sigmoid, a
            regression loss, another layer). ``"classes"`` averages their softmax without this check.

    Raises:
        ValueError: If an argument is wrong. If the target does not exist, is not called by the first batch (the error
            lists submodules), or returns no class scores ``(N, C)``. If an image is smaller than its crop.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[TestTimeAugmentation("ten_crop(56)", target="net")], logger=False)

    References:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012 (ten crops);
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385 (five scales of them).
    """

    __test__ = False  # pytest would collect the class by its name

    def __init__(
        self,
        views: str | list[Any] | Callable[..., Any] = "flip",
        *,
        target: str | None = None,
        average: str = "probabilities",
        early_exit: bool = False,
        max_batch: int | None = None,
        stages: str | list[str] | tuple[str, ...] = ("test", "predict"),
        output: str = "auto",
    ) -> None:
        super().__init__(target, average, early_exit, max_batch, stages, output)
        self.views = views
        self._views = Views(views)

    def _source(self, trainer: L.Trainer, pl_module: L.LightningModule, module: nn.Module) -> Source:
        return self._views

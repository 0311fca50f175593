"""Test on several views of each image and average."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_trainingkit._lightning import L
from lightning_trainingkit.callbacks.averaging.averaging_callback import AveragingCallback
from lightning_trainingkit.nn.averaging.averaged import Views
from lightning_trainingkit.nn.averaging.sources import Source

__all__ = ["TestTimeAugmentation"]


class TestTimeAugmentation(AveragingCallback):
    r"""Average the outputs over flips, crops, shifts, scales and rotations of the images, on a module nobody changed.

    :math:`\log \sum_k w_k \, \mathrm{softmax}(f(v_k(x)))` stands where the target's output stood: log-probabilities
    ``(N, C)``, so that the step's own softmax, argmax, cross-entropy and metrics are right. All 4-d tensors of floats
    or bytes in the target's arguments are taken for images. Beside ``EnsembleAverage`` and ``MonteCarloDropout`` with
    the same target the passes multiply, in whichever order the callbacks stand.

    Args:
        views: A named set (``"flip"``, ``"vertical_flip"``, ``"rotations"``, ``"shifts(2)"``, ``"scales(256, 480)"``,
            ``"five_crop(224)"``, ``"ten_crop(224)"``, ``"resnet_multi_scale"``, ``"airbench"``), a callable that takes
            and returns images ``(N, C, H, W)`` (added to the images as they are), or a list of these, which is
            composed: every view of the first with every view of the next. A list inside the list holds single views,
            see ``functional.views.make_views``.
        target: Name of the submodule that takes the images and returns logits ``(N, C)``; None for the module itself.
        average: ``"probabilities"``, ``"logits"`` (or ``"geometric"``: the same once it is normalised) or ``"votes"``.
        early_exit: Leave out the passes of a sample that can't change its argmax any more. The accuracy is that of the
            full average. Probabilities are averages of the passes made. The saved share of the passes is logged as
            ``test/passes_saved``.
        max_batch: Most images in one call of the target: larger batches are cut, views of smaller ones put together.
            None: each view of a batch is one call. Arguments whose first dimension is the number of images are cut
            with them.
        stages: Some of ``"validate"``, ``"test"``, ``"predict"``. A fit would pay for ``"validate"`` in every epoch.
        output: ``"auto"`` refuses outputs that are no class scores, as the first batch shows by what the step does with
            them: sigmoid, a regression loss, a layer. ``"classes"`` averages softmax of them all the same.

    Raises:
        ValueError: If an argument is wrong. If the target does not exist, is not called by the first batch (those that
            were are listed), or returns no class scores ``(N, C)``. If an image is smaller than its crop.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[TestTimeAugmentation("ten_crop(56)", target="net")], logger=False)

    References:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012 (ten crops);
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385 (five scales of them).
    """

    __test__ = False  # no test of pytest's

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

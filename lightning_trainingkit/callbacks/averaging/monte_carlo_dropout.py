"""Leave dropout on at test time, average over masks, and tell how unsure the model is."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_trainingkit._lightning import L, rank_zero_info
from lightning_trainingkit.callbacks._lightning import evaluation_loaders
from lightning_trainingkit.callbacks.averaging.averaging_callback import AveragingCallback
from lightning_trainingkit.functional.uncertainty import predictive_entropy
from lightning_trainingkit.nn.averaging.average import Averaging
from lightning_trainingkit.nn.averaging.random_masks import RandomMasks
from lightning_trainingkit.nn.averaging.sources import Source

__all__ = ["MonteCarloDropout"]


class MonteCarloDropout(AveragingCallback):
    r"""Average the outputs over random masks of dropout and its kin, and measure the uncertainty that they show.

    :math:`\log \bar p`, :math:`\bar p = \frac{1}{T} \sum_t \mathrm{softmax}(f(x, z_t))`, stands where the target's
    output stood, with everything random on and all else in eval mode, BatchNorm too. Beside it, for each sample,

    - the predictive entropy :math:`H(\bar p)`, how unsure the average is, in nats: 0 to :math:`\log C`;
    - the mutual information :math:`H(\bar p) - \frac{1}{T} \sum_t H(p_t)`, how much of this is disagreement of the
      passes, which more training data could settle; 0 for one pass.

    Their means over all samples of all ranks are logged as ``test/entropy`` and ``test/mutual_information``, in
    validation as ``val/...``; with several data loaders for each one, as ``test/entropy/dataloader_idx_0``. Beside
    ``TestTimeAugmentation`` and ``EnsembleAverage`` with the same target the passes multiply, in whichever order the
    callbacks stand, and both numbers are over all of them. The layers that are random are printed, and held in
    ``random_layers``.

    The masks of a stage depend on the rank and on the seed that torch was given last (``L.seed_everything``,
    ``EpochSeed``) alone, so that a stage that is run again gives the same numbers; for other masks, seed differently.
    torch's generators are left as they were: a fit with ``"validate"`` among the stages is bit for bit that without.

    Args:
        passes: Number of masks :math:`T`, positive. The mean is smooth from about 20 on, the entropies from more.
        target: Name of the submodule that returns logits ``(N, C)``; None for the module itself.
        layers: Names (``fnmatch`` patterns, within the target) of layers that draw in their own forward and can't be
            found by their type, as by ``F.dropout(x, training=self.training)``; ``""`` is the target itself. They too
            are put into training mode, without their children. See ``nn.averaging.random_masks.random_layers``.
        average: ``"probabilities"``, ``"logits"`` (or ``"geometric"``) or ``"votes"``. The mutual information belongs
            to the first; with another one only the entropy, that of the average which is made, is measured.
        max_batch: Most samples in one call of the target: larger batches are cut, views of smaller ones put together.
            Arguments whose first dimension is the number of samples are cut with them.
        stages: Some of ``"validate"``, ``"test"``, ``"predict"``. A fit would pay for ``"validate"`` in every epoch.
        output: ``"auto"`` refuses outputs that are no class scores, as the first batch shows by what the step does with
            them: sigmoid, a regression loss, a layer. ``"classes"`` averages softmax of them all the same.

    Raises:
        TypeError: If ``layers`` is neither a string nor a list of strings.
        ValueError: If an argument is wrong; if the target does not exist, is not called by the first batch (those that
            were are listed), draws no random numbers, or does not return ``(N, C)``.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[MonteCarloDropout(20, target="net")], logger=False)

    References:
        Gal and Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016, arXiv:1506.02142;
        Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011, arXiv:1112.5745.
    """

    def __init__(
        self,
        passes: int = 20,
        *,
        target: str | None = None,
        layers: str | list[str] | None = None,
        average: str = "probabilities",
        max_batch: int | None = None,
        stages: str | list[str] | tuple[str, ...] = ("test", "predict"),
        output: str = "auto",
    ) -> None:
        super().__init__(target, average, False, max_batch, stages, output)
        RandomMasks(passes, layers=layers)  # raises if they are wrong
        self.passes = passes
        self.layers = layers
        self.entropy: Tensor | None = None
        """Predictive entropy of each sample of the last stage on this rank, in the order in which they came, ``(N,)``,
        on the CPU; of several data loaders one after the other."""
        self.mutual_information: Tensor | None = None
        """Likewise, for ``average="probabilities"``."""
        self.random_layers: dict[str, str] = {}
        """By name within the target, the class of each layer that was random in the last stage."""
        self._measured: list[Tensor] = []
        self._loaders: list[int] = []  # that each of them comes from

    def _source(self, trainer: L.Trainer, pl_module: L.LightningModule, module: nn.Module) -> Source:
        self.entropy, self.mutual_information, self._measured, self._loaders = None, None, [], []
        seed = (torch.initial_seed() + trainer.global_rank) % 2**63
        return RandomMasks(self.passes, layers=self.layers, seed=seed)

    def observe(self, result: Tensor, averaging: Averaging) -> None:
        """Measure the uncertainty of each sample of a call."""
        measured = [predictive_entropy(result.detach())]
        if self.average == "probabilities":
            assert averaging.expected_entropy is not None  # there are masks
            measured.append((measured[0] - averaging.expected_entropy.detach()).clamp(min=0))  # but for rounding it is
        self._measured.append(torch.stack(measured))  # stays on the device: no wait for it at each batch
        (masks,) = (source for source in averaging.sources if isinstance(source, RandomMasks))
        if masks.found != self.random_layers:
            self.random_layers = masks.found
            names = [f"{name or 'the target'} ({kind})" for name, kind in self.random_layers.items()]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            rank_zero_info(f"Monte-Carlo dropout: {self.passes} passes, random in {', '.join(names[:5])}{more}.")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the mean entropy and mutual information."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the mean entropy and mutual information."""
        super().on_test_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, "test")

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep entropy and mutual information of each sample."""
        super().on_predict_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, None)

    def _end_batch(self, stage: str, batch: Any, loader: int) -> None:
        """Also note which data loader the calls belong to."""
        super()._end_batch(stage, batch, loader)
        self._loaders += [loader] * (len(self._measured) - len(self._loaders))

    def _summarise(self, trainer: L.Trainer, pl_module: L.LightningModule, prefix: str | None) -> None:
        if self._patch is None:
            return
        rows = 2 if self.average == "probabilities" else 1
        with torch.inference_mode(False), torch.no_grad():  # so that the values are ordinary tensors
            values = torch.cat([torch.empty(rows, 0, device=pl_module.device), *self._measured], dim=1).cpu()
        self.entropy, self.mutual_information = values[0], values[1] if rows == 2 else None
        later = len(self._measured) - len(self._loaders)  # calls from a hook of the module's after the batches
        self._loaders += [self._loaders[-1] if self._loaders else 0] * later
        sizes = [each.shape[1] for each in self._measured]
        parts = list(zip(self._loaders, torch.split(values, sizes, dim=1), strict=True))
        self._measured, self._loaders = [], []
        if prefix is None:
            return
        count = evaluation_loaders(trainer)
        exact = torch.float32 if pl_module.device.type == "mps" else torch.float64  # which has no double precision
        sums = torch.zeros(count, rows + 1, dtype=torch.float64)
        for loader, part in parts:
            sums[loader, :rows] += part.sum(1, dtype=torch.float64)
            sums[loader, rows] += part.shape[1]
        reduced = trainer.strategy.reduce(sums.to(pl_module.device, exact), reduce_op="sum")
        for loader, (*totals, samples) in enumerate(reduced.tolist()):
            suffix = f"/dataloader_idx_{loader}" if count > 1 else ""
            for name, total in zip(("entropy", "mutual_information"), totals, strict=False):
                key, mean = f"{prefix}/{name}{suffix}", total / max(1, samples)  # equal on all ranks already
                pl_module.log(key, mean, sync_dist=True, add_dataloader_idx=False)

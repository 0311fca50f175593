"""Keep dropout on at test time, average over masks, and measure the uncertainty."""

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
    r"""Average the target's outputs over dropout masks, and measure the predictive uncertainty.

    In the chosen stages the target returns :math:`\log \bar p` with
    :math:`\bar p = \frac{1}{T} \sum_t \mathrm{softmax}(f(x, z_t))`. Random layers are in training mode; all other
    layers, BatchNorm included, are in eval mode. For each sample the callback measures, in nats,

    - the predictive entropy :math:`H(\bar p)`, from 0 to :math:`\log C`;
    - the mutual information :math:`H(\bar p) - \frac{1}{T} \sum_t H(p_t)`: the disagreement of passes, 0 for one.

    Their means over all samples of all ranks are logged as ``test/entropy`` and ``test/mutual_information``
    (``val/...`` in validation; with several loaders ``.../dataloader_idx_0``).

    - **Random layers** are printed, and held in ``random_layers``.
    - **Masks** depend on the rank and torch's last seed alone: a repeated stage repeats its numbers.
    - **Together** with other averaging callbacks on the same target the passes multiply. Both measures cover all
      passes.

    Args:
        passes: Number of masks :math:`T`, positive. 20 give a smooth mean; the entropies need more.
        target: Name of the submodule that returns logits ``(N, C)``; None for the module itself.
        layers: ``fnmatch`` patterns, within the target, of further layers to put into training mode, without their
            children: layers that call ``F.dropout(x, training=self.training)``, which no type shows. ``""`` is the
            target itself. See ``nn.random_layers``.
        average: ``"probabilities"``, ``"logits"`` (or ``"geometric"``) or ``"votes"``. Only ``"probabilities"`` has a
            mutual information; the entropy is always the entropy of the chosen average.
        max_batch: Most samples in one call of the target. Larger batches are cut, with every argument whose first
            dimension is the number of samples. Views of smaller batches share a call.
        stages: Some of ``"validate"``, ``"test"``, ``"predict"``. With ``"validate"`` each validation of a fit costs
            all passes.
        output: ``"auto"`` refuses outputs that the step of the first batch does not use as class scores (sigmoid, a
            regression loss, another layer). ``"classes"`` averages their softmax without this check.

    Raises:
        TypeError: If ``layers`` is neither a string nor a list of strings.
        ValueError: If an argument is wrong. If the target does not exist, is not called by the first batch (the error
            lists submodules), draws no random numbers, or does not return ``(N, C)``.

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
        RandomMasks(passes, layers=layers)  # raises if an argument is wrong
        self.passes = passes
        self.layers = layers
        self.entropy: Tensor | None = None
        """Predictive entropy of each sample of the last stage on this rank, ``(N,)``, on the CPU. Samples stand in the
        order of the batches, and batches in the order of the data loaders."""
        self.mutual_information: Tensor | None = None
        """Mutual information of each sample, ``(N,)``, for ``average="probabilities"``; None for other averages."""
        self.random_layers: dict[str, str] = {}
        """Class of each layer that was random in the last stage, by the layer's name within the target."""
        self._measured: list[Tensor] = []
        self._loaders: list[int] = []  # data loader of each entry of `_measured`

    def _source(self, trainer: L.Trainer, pl_module: L.LightningModule, module: nn.Module) -> Source:
        self.entropy, self.mutual_information, self._measured, self._loaders = None, None, [], []
        seed = (torch.initial_seed() + trainer.global_rank) % 2**63
        return RandomMasks(self.passes, layers=self.layers, seed=seed)

    def observe(self, result: Tensor, averaging: Averaging) -> None:
        """Measure the uncertainty of each sample of a call."""
        measured = [predictive_entropy(result.detach())]
        if self.average == "probabilities":
            assert averaging.expected_entropy is not None  # masks are among the sources
            measured.append((measured[0] - averaging.expected_entropy.detach()).clamp(min=0))  # rounding can go below 0
        self._measured.append(torch.stack(measured))  # stays on the device: no synchronisation in each batch
        (masks,) = (source for source in averaging.sources if isinstance(source, RandomMasks))
        if masks.found != self.random_layers:
            self.random_layers = masks.found
            names = [f"{name or 'the target'} ({kind})" for name, kind in self.random_layers.items()]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            rank_zero_info(f"Monte-Carlo dropout: {self.passes} passes, random in {', '.join(names[:5])}{more}.")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the mean entropy and, for averaged probabilities, the mean mutual information."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the mean entropy and, for averaged probabilities, the mean mutual information."""
        super().on_test_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, "test")

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the entropy and the mutual information of each sample."""
        super().on_predict_epoch_end(trainer, pl_module)
        self._summarise(trainer, pl_module, None)

    def _end_batch(self, stage: str, batch: Any, loader: int) -> None:
        """Also note the data loader of the calls."""
        super()._end_batch(stage, batch, loader)
        self._loaders += [loader] * (len(self._measured) - len(self._loaders))

    def _summarise(self, trainer: L.Trainer, pl_module: L.LightningModule, prefix: str | None) -> None:
        if self._patch is None:
            return
        rows = 2 if self.average == "probabilities" else 1
        with torch.inference_mode(False), torch.no_grad():  # so that the values are ordinary tensors
            values = torch.cat([torch.empty(rows, 0, device=pl_module.device), *self._measured], dim=1).cpu()
        self.entropy, self.mutual_information = values[0], values[1] if rows == 2 else None
        later = len(self._measured) - len(self._loaders)  # calls from a hook of the module after the batches
        self._loaders += [self._loaders[-1] if self._loaders else 0] * later
        sizes = [each.shape[1] for each in self._measured]
        parts = list(zip(self._loaders, torch.split(values, sizes, dim=1), strict=True))
        self._measured, self._loaders = [], []
        if prefix is None:
            return
        count = evaluation_loaders(trainer)
        exact = torch.float32 if pl_module.device.type == "mps" else torch.float64  # MPS has no double precision
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

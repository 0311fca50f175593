"""Modules whose steps do what a rehearsal on a copy must not do to the training."""

import contextlib
import random

import numpy as np
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lightning_trainingkit._lightning import L
from tests.toy import ToyModule


class Stateful(ToyModule):
    """Keeps batches, counts, and updates metrics, in training and in validation."""

    def __init__(self):
        super().__init__()
        self.batches, self.count = [], 0
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        self.count += 1
        self.seen += 1
        logits = self(batch[0])
        self.accuracy(logits, batch[1])
        self.log("train/acc", self.accuracy, on_step=True, on_epoch=True, prog_bar=True)
        return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits}

    def validation_step(self, batch, batch_idx):
        self.count += 1
        self.log("val/acc", self.accuracy(self(batch[0]), batch[1]), sync_dist=True, add_dataloader_idx=False)


class UsesTrainer(ToyModule):
    """Reads and changes the Trainer, its loggers and its optimizers."""

    def training_step(self, batch, batch_idx):
        rate = self.trainer.optimizers[0].param_groups[0]["lr"] + self.lr_schedulers().get_last_lr()[0]
        self.log_dict({"rate": rate, "gathered": self.all_gather(torch.tensor(1.0)).mean()}, on_step=True)
        if self.trainer.logger is not None:
            self.trainer.logger.log_metrics({"direct": 1.0}, step=self.global_step)
            self.logger.experiment.add_image("image", batch[0][0])
        self.trainer.save_checkpoint(f"step-{self.global_step}.ckpt")
        if self.global_step == 7:
            self.trainer.should_stop = True
        return super().training_step(batch, batch_idx)


class MethodHook(ToyModule):
    """Reads features by a forward hook that is a method."""

    def __init__(self):
        super().__init__()
        self.features = []
        self.net[3].register_forward_hook(self.keep)

    def keep(self, layer, args, output):
        self.features.append(output.detach())

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + 0 * self.features[-1].mean()


class ByHand(ToyModule):
    """Two optimizers, backward by hand and by Lightning, gradients read and clipped, optimizers in a closure."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        one, other = self.optimizers()
        for optimizer in (one, other):
            self.toggle_optimizer(optimizer)
            loss = F.cross_entropy(self(batch[0]), batch[1])
            optimizer.zero_grad()
            if optimizer is one:
                self.manual_backward(loss)
            else:
                loss.backward()
            self.clip_gradients(optimizer, 0.5, "norm")
            norm = optimizer.param_groups[0]["params"][0].grad.norm()
            for group in optimizer.param_groups:
                group["lr"] = 0.05 / (1 + norm.item())
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        for schedule in self.lr_schedulers():
            schedule.step()

    def configure_optimizers(self):
        parts = self.net[0], self.net[5]
        optimizers = [torch.optim.SGD(part.parameters(), 0.1, momentum=0.9) for part in parts]
        return optimizers, [torch.optim.lr_scheduler.StepLR(each, 2) for each in optimizers]


class Parametrized(ToyModule):
    """Weight norm and spectral norm, whose buffers change in each forward pass."""

    def __init__(self):
        super().__init__()
        parametrizations.spectral_norm(self.net[0])
        parametrizations.weight_norm(self.net[5])


class OldSpectralNorm(ToyModule):
    def __init__(self):
        super().__init__()
        torch.nn.utils.spectral_norm(self.net[0])


class Nested(ToyModule):
    """A LightningModule inside, which reads the Trainer."""

    class Part(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x * self.scale + 0.01 * self.trainer.global_step

    def __init__(self):
        super().__init__()
        self.part = self.Part()

    def forward(self, x):
        return self.part(super().forward(x))


class Draws(ToyModule):
    """Draws from all generators, and from one of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def training_step(self, batch, batch_idx):
        legacy = np.random.rand()  # noqa: NPY002 - the generator that Lightning puts back
        noise = torch.randn(8, 2, generator=self.generator) * random.random() * float(legacy)
        return F.cross_entropy(self(batch[0]) + noise, batch[1])


class BuiltInSetup(ToyModule):
    """Makes its layers in ``setup``."""

    def __init__(self):
        super().__init__()
        self.net = None

    def setup(self, stage):
        if self.net is None:
            torch.manual_seed(3)
            self.net = ToyModule().net


class Registered(ToyModule):
    """Its class registers all subclasses."""

    names: list[str] = []  # noqa: RUF012 - of all subclasses

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Registered.names.append(cls.__name__)


class NoneAtTimes(ToyModule):
    """Skips batches."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx else None


class FeatureLoss(ToyModule):
    """Steps with the fewest arguments, gradients in validation, and a list of closures that hold nothing."""

    def __init__(self):
        super().__init__()
        self.views = [lambda x: x, lambda x: x.flip(-1)]

    def training_step(self, batch):
        return sum(F.cross_entropy(self(view(batch[0])), batch[1]) for view in self.views)

    def validation_step(self, batch):
        with torch.inference_mode(False), torch.enable_grad(), contextlib.suppress(RuntimeError):
            x = batch[0].clone().requires_grad_()
            self.log("val/slope", torch.autograd.grad(self(x).sum(), x)[0].norm())


class ClosureHook(ToyModule):
    """Reads features by a forward hook that is a closure: a copy would write to this module."""

    def __init__(self):
        super().__init__()
        self.features = []
        self.net[3].register_forward_hook(lambda layer, args, output: self.features.append(output.detach()))


class ClosureAttribute(ToyModule):
    """Calls its layers by a closure: a copy would train the BatchNorm of this module."""

    def __init__(self):
        super().__init__()
        self.run = lambda x: self.net(x)

    def forward(self, x):
        return self.run(x)


class OldWeightNorm(ToyModule):
    """Holds a tensor with a graph, which cannot be copied."""

    def __init__(self):
        super().__init__()
        self.extra = self.net[5].weight * 2


COPIED = [
    ToyModule,
    Stateful,
    UsesTrainer,
    MethodHook,
    ByHand,
    Parametrized,
    OldSpectralNorm,
    Nested,
    Draws,
    BuiltInSetup,
    Registered,
    NoneAtTimes,
    FeatureLoss,
]
NOT_COPIED = [ClosureHook, ClosureAttribute, OldWeightNorm]

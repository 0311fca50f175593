"""The callbacks in projects of others: torchgeo, torch-uncertainty, lightly and segmentation-models-pytorch.

Expected: each line "equal" (to an average or a copy written out, up to 1e-5) or "refused" with a sentence; exit 0.
Cost:     2 min on 2 CPU cores, after an installation of half a minute
Command:  python3 -m venv foreign; python -c "import site; print(site.getsitepackages()[0])" > PURELIB/first.pth, where
          PURELIB is foreign's site-packages; foreign/bin/pip install torchgeo torch-uncertainty lightly
          segmentation-models-pytorch; PYTHONPATH=. foreign/bin/python tests/foreign.py

Not collected by pytest. Each project runs in a process of its own: some import lightning, some pytorch_lightning.
"""

import copy
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss
from torch.utils.data import DataLoader

PROJECTS = {}
TOLERANCE = 1e-5


def project(function):
    PROJECTS[function.__name__] = function
    return function


def images(classes=4, n=16, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=generator), torch.randint(classes, (n,), generator=generator)


def loader(*columns, names=None):
    rows = list(zip(*columns, strict=True))
    return DataLoader([dict(zip(names, row, strict=True)) for row in rows] if names else rows, 8)


def trainer(pl, *callbacks, **options):
    defaults = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        callbacks=list(callbacks),
        accelerator="cpu",
        **defaults | {"enable_checkpointing": any(hasattr(c, "save_top_k") for c in callbacks)} | options,
    )


def say(what, difference=None, call=None):
    """Print whether a difference is one of rounding, or with which sentence a call is refused; else it is WRONG."""
    if call is None:
        said = "equal" if difference <= TOLERANCE else f"WRONG, by {difference:.3g}"
    else:
        try:
            call()
            said = "WRONG: not refused"
        except (TypeError, ValueError) as error:
            said = f"refused: {error}"
    print(f"{what}: {said}", flush=True)


def mean_of(nets, views):
    """Log of the mean class probabilities of nets over views."""
    with torch.inference_mode():
        return torch.stack([net.eval()(x).softmax(1) for net in nets for x in views]).mean(0).log()


@project
def torchgeo():
    import lightning.pytorch as pl
    from torchgeo.trainers import ClassificationTask, RegressionTask, SemanticSegmentationTask

    import lightning_trainingkit as kit

    x, y = images()
    data = loader(x, y, names=("image", "label"))
    tasks = [ClassificationTask("resnet18", num_classes=4) for _ in range(3)]
    for k, task in enumerate(tasks):
        torch.save({"state_dict": task.state_dict()}, f"member-{k}.ckpt")
    for what, callbacks, expected in (
        (
            "TestTimeAugmentation",
            [kit.TestTimeAugmentation("flip", target="model")],
            mean_of([tasks[0].model], [x, x.flip(-1)]),
        ),
        (
            "EnsembleAverage",
            [kit.EnsembleAverage("member-*.ckpt", target="model")],
            mean_of([t.model for t in tasks], [x]),
        ),
        (
            "both",
            [kit.EnsembleAverage("member-*.ckpt", target="model"), kit.TestTimeAugmentation("flip", target="model")],
            mean_of([t.model for t in tasks], [x, x.flip(-1)]),
        ),
    ):
        (found,) = trainer(pl, *callbacks).test(tasks[0], data, verbose=False)
        say(f"classification, {what}", abs(found["test_loss"] - nll_loss(expected, y).item()))
    many = (torch.rand(16, 4, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    tta = kit.TestTimeAugmentation("flip", target="model")
    many = many.long()
    several = ClassificationTask("resnet18", task="multilabel", num_labels=4, loss="bce")
    say(
        "multi-label",
        call=lambda: trainer(pl, tta).test(several, loader(x, many, names=("image", "label")), verbose=False),
    )
    regression = RegressionTask("resnet18", num_outputs=2)
    targets = torch.randn(16, 2)
    say(
        "regression",
        call=lambda: trainer(pl, tta).test(regression, loader(x, targets, names=("image", "label")), verbose=False),
    )
    segmentation = SemanticSegmentationTask("unet", "resnet18", num_classes=4)
    masks = torch.randint(4, (16, 32, 32))
    say(
        "segmentation",
        call=lambda: trainer(pl, tta).test(segmentation, loader(x, masks, names=("image", "mask")), verbose=False),
    )
    frozen = ClassificationTask("resnet18", num_classes=4)
    before = copy.deepcopy(frozen.state_dict())
    run = trainer(
        pl,
        kit.TransferLearning([{"train": "head"}], verbose=False),
        kit.BestCheckpoint("val_loss", "min"),
        kit.EpochSeed(1),
    )
    run.fit(frozen, data, data)
    moved = {name for name, value in frozen.state_dict().items() if not torch.equal(value, before[name])}
    say("TransferLearning trains the head alone", float(moved != {"model.fc.weight", "model.fc.bias"}))


@project
def torch_uncertainty():
    import lightning.pytorch as pl
    from torch_uncertainty.models.classification import lenet
    from torch_uncertainty.optim_recipes import optim_cifar10_resnet18
    from torch_uncertainty.routines import ClassificationRoutine

    import lightning_trainingkit as kit

    x, y = images()
    nets = [lenet(3, 4) for _ in range(3)]
    routine = ClassificationRoutine(nets[0], 4, nn.CrossEntropyLoss(), optim_recipe=optim_cifar10_resnet18(nets[0]))
    for what, callback, expected in (
        ("TestTimeAugmentation", kit.TestTimeAugmentation("flip", target="model"), mean_of([nets[0]], [x, x.flip(-1)])),
        ("EnsembleAverage", kit.EnsembleAverage(nets, target="model"), mean_of(nets, [x])),
    ):
        (found,) = trainer(pl, callback).test(routine, loader(x, y), verbose=False)
        say(f"classification, {what}", abs(found["test/cls/NLL"] - nll_loss(expected, y).item()))
    stop = kit.EarlyStopping("val/cls/NLL", patience=1)
    trainer(pl, stop, kit.InitOverride(verbose=False), kit.EpochSeed(1)).fit(routine, loader(x, y), loader(x, y))
    (found,) = trainer(pl).validate(routine, loader(x, y), verbose=False)
    say("EarlyStopping puts the best back", abs(found["val/cls/NLL"] - float(stop.best_score)))


@project
def lightly():
    import pytorch_lightning as pl
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torchvision.models import resnet18

    import lightning_trainingkit as kit

    class BYOL(pl.LightningModule):
        """As in lightly's own example."""

        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(*list(resnet18().children())[:-1])
            self.projection_head = BYOLProjectionHead(512, 64, 32)
            self.prediction_head = BYOLPredictionHead(32, 64, 32)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)
            self.criterion = NegativeCosineSimilarity()

        def forward(self, x):
            return self.prediction_head(self.projection_head(self.backbone(x).flatten(start_dim=1)))

        def on_train_start(self):
            pairs = zip(self.backbone.parameters(), self.backbone_momentum.parameters(), strict=True)
            self.apart = max((one - other).abs().max().item() for one, other in pairs)

        def training_step(self, batch, batch_idx):
            update_momentum(self.backbone, self.backbone_momentum, m=0.99)
            update_momentum(self.projection_head, self.projection_head_momentum, m=0.99)
            x0, x1 = batch[0], batch[0].flip(-1)
            with torch.no_grad():
                z = [self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1)) for x in (x0, x1)]
            loss = 0.5 * (self.criterion(self(x0), z[1]) + self.criterion(self(x1), z[0]))
            self.log("train_loss_ssl", loss, on_epoch=True, on_step=False)
            return loss

        def test_step(self, batch, batch_idx):
            self.log("test_similarity", self.criterion(self(batch[0]), self(batch[0].flip(-1))))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.06)

    x, y = images()
    module = BYOL()
    drawn = module.backbone[0].weight.clone()
    callbacks = [kit.InitOverride(verbose=False), kit.BestCheckpoint("train_loss_ssl", "min"), kit.EpochSeed(1)]
    trainer(pl, *callbacks).fit(module, loader(x, y))
    say("InitOverride draws", float(torch.equal(drawn, module.backbone[0].weight)))
    say("the momentum net stays a copy", module.apart)
    tta = kit.TestTimeAugmentation("flip")
    say(
        "self-supervised, TestTimeAugmentation", call=lambda: trainer(pl, tta).test(module, loader(x, y), verbose=False)
    )


@project
def segmentation_models_pytorch():
    import pytorch_lightning as pl
    import segmentation_models_pytorch as smp

    import lightning_trainingkit as kit

    class Segment(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = smp.Unet("resnet18", encoder_weights=None, classes=3)
            self.loss, self.seen = smp.losses.DiceLoss("multiclass"), []

        def training_step(self, batch, batch_idx):
            return self.loss(self.model(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("valid_dice_loss", self.loss(self.model(batch[0]), batch[1]))

        def test_step(self, batch, batch_idx):
            self.log("test_loss", cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    x, _ = images()
    data = loader(x, torch.randint(3, (16, 32, 32)))
    module = Segment()
    save, stop = kit.BestCheckpoint("valid_dice_loss", "min"), kit.EarlyStopping("valid_dice_loss", patience=1)
    trainer(pl, save, stop, kit.EpochSeed(1), kit.ChannelsLast(), max_epochs=3).fit(module, data, data)
    best = kit.load_best(Segment(), save.dirpath)
    (found,) = trainer(pl).validate(module, data, verbose=False)
    say(
        "EarlyStopping and BestCheckpoint agree on the best",
        abs(found["valid_dice_loss"] - float(save.best_model_score)),
    )
    say("load_best finds it", float(str(best) != save.best_model_path))
    for callback in (
        kit.TestTimeAugmentation("flip", target="model"),
        kit.EnsembleAverage([Segment().model], target="model"),
    ):
        name = type(callback).__name__
        say(
            f"segmentation, {name}",
            call=lambda callback=callback: trainer(pl, callback).test(module, data, verbose=False),
        )


if __name__ == "__main__":
    if sys.argv[1:]:
        warnings.simplefilter("ignore")
        for package in ("lightning.pytorch", "pytorch_lightning"):
            logging.getLogger(package).setLevel(logging.ERROR)
        torch.manual_seed(0)
        PROJECTS[sys.argv[1]]()
        sys.exit()
    wrong = 0
    for name in PROJECTS:
        with tempfile.TemporaryDirectory() as folder:
            command, env = [sys.executable, Path(__file__).resolve(), name], os.environ | {"OMP_NUM_THREADS": "2"}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        print(f"== {name}\n{done.stdout}", flush=True)
        wrong += "WRONG" in done.stdout or done.returncode != 0
        if done.returncode:
            print(done.stderr[-3000:])
    sys.exit(min(wrong, 1))

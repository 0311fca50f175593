import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_trainingkit import DigitsDataModule, ImageClassifier, SmallResNet, linear_probe
from lightning_trainingkit.functional.logistic import fit_logistic


def digits():
    data = DigitsDataModule(batch_size=200)
    data.setup()
    return data


def test_the_head_is_solved_and_nothing_else_changes():
    torch.manual_seed(0)
    data = digits()
    module = ImageClassifier(SmallResNet(10, width=8), 10)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    modes = [each.training for each in module.modules()]
    probe = linear_probe(module, data.train_dataloader(), data.val_dataloader())
    assert probe.head == "model.head"
    assert probe.val_acc > 0.5  # random features
    changed = {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"model.head.weight", "model.head.bias"}
    assert modes == [each.training for each in module.modules()]
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not module.model.head._forward_pre_hooks
    with torch.no_grad():
        right = [(module.eval()(x).argmax(1) == y) for x, y in data.val_dataloader()]
    assert torch.cat(right).double().mean().item() == pytest.approx(probe.val_acc)


def test_the_penalty_is_chosen_by_loss_on_validation_or_on_a_fifth():
    torch.manual_seed(0)
    x = torch.randn(60, 40)
    y = (x[:, 0] + 0.5 * torch.randn(60) > 0).long()
    val = torch.randn(500, 40)
    val = DataLoader(TensorDataset(val, (val[:, 0] > 0).long()), 100)
    train = DataLoader(TensorDataset(x, y), 16)
    net = nn.Sequential(nn.Identity(), nn.Linear(40, 2))
    few = linear_probe(net, train, val)
    assert few.l2 > 1e-4
    weight, _ = fit_logistic(x, y, 2, few.l2)
    torch.testing.assert_close(net[1].weight, weight)
    assert few.val_acc > linear_probe(net, train, val, l2=1e-8).val_acc
    alone = linear_probe(net, train)
    assert alone.val_acc is None
    assert alone.l2 > 1e-4
    bare = nn.Sequential(nn.Flatten(), nn.Linear(40, 2, bias=False))
    assert linear_probe(bare, train, val).val_acc > 0.6


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x) + self.head(-x)


class After(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.body, self.head, self.sign = nn.Linear(4, 4), nn.Linear(4, 2), sign

    def forward(self, x):
        return self.sign * self.head(input=self.body(x).relu())


def test_what_the_model_returns_is_what_was_solved():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16)
    assert linear_probe(After(2.0), iter(loader)).train_acc > 0.6
    tied = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    tied[2].weight = tied[0].weight
    for dtype in (torch.bfloat16, torch.float64):
        assert linear_probe(After(1.0).to(dtype), loader).train_acc > 0.6
    for model, data in ((After(-1.0), loader), (tied, DataLoader(TensorDataset(x[:, :2], (x[:, 0] > 0).long()), 16))):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError, match="something follows it, or it shares its weight"):
            linear_probe(model, data)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    x[3] = torch.nan
    with pytest.raises(ValueError, match="must give finite features"):
        linear_probe(After(1.0), loader)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal, nn.utils.weight_norm],
)
def test_a_head_whose_weight_is_computed_is_refused_before_the_images_are_read(change):
    net = After(1.0)
    change(net.head)
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def images():
        yield from ()
        raise AssertionError

    with pytest.raises(ValueError, match="must end in a layer that holds its weight itself, got `head`"):
        linear_probe(net, images())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_head_may_hold_more_than_tensors():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"classes": "abc"}

        def set_extra_state(self, state):
            pass

    torch.manual_seed(0)
    x = torch.randn(64, 8)
    data = DataLoader(TensorDataset(x, (x[:, :3] * torch.tensor([0.1, 1.0, 10.0])).argmax(1)), 16)
    assert linear_probe(nn.Sequential(Extra(8, 3)), data).train_acc > 0.9


def test_errors():
    x, y = torch.randn(8, 3, 64, 64), torch.randint(2, (8,))

    def batches(*parts):
        return [parts]

    with pytest.raises(ValueError, match=r"must end in a linear layer, got Conv2d.* as `classifier.1`"):
        linear_probe(torchvision.models.squeezenet1_1(num_classes=2), batches(x, y))
    with pytest.raises(ValueError, match=r"once with features \(N, D\), got \[\(8, 4\), \(8, 4\)\]"):
        linear_probe(Twice(), batches(torch.randn(8, 4), y))
    with pytest.raises(ValueError, match=r"once with features \(N, D\), got \[\(8, 3, 4\)\]"):
        linear_probe(nn.Sequential(nn.Linear(4, 2), nn.Flatten()), batches(torch.randn(8, 3, 4), y))
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="got 2 and labels from 0 to 5"):
        linear_probe(net, batches(torch.randn(2, 4), torch.tensor([0, 5])))
    with pytest.raises(TypeError, match="must yield class indices"):
        linear_probe(net, batches(torch.randn(2, 4), torch.rand(2, 2)))
    with pytest.raises(TypeError, match="images and class indices"):
        linear_probe(net, [torch.randn(2, 4)])
    with pytest.raises(TypeError, match=r"got a dict of image, label. Give the pairs: "):
        linear_probe(net, [{"image": torch.randn(2, 4), "label": torch.zeros(2).long()}])
    with pytest.raises(TypeError, match="Give a DataLoader, not the data set itself"):
        linear_probe(net, list(TensorDataset(torch.randn(2, 4), torch.zeros(2).long())))
    with pytest.raises(TypeError, match=r"got DigitsDataModule. Give a DataLoader; of a DataModule, call `setup\(\)`"):
        linear_probe(net, DigitsDataModule())
    with pytest.raises(AttributeError, match="`train_set` must be loaded, got DigitsDataModule before its `setup`"):
        linear_probe(net, DigitsDataModule().train_dataloader())
    with pytest.raises(ValueError, match="at least one batch"):
        linear_probe(net, [])
    with pytest.raises(ValueError, match=r"`l2` must be .*at least 0"):
        linear_probe(net, batches(x, y), l2=-1)
    with pytest.raises(ValueError, match="`l2` must be given for 1 images"):
        linear_probe(net, batches(torch.randn(1, 4), torch.tensor([0])))

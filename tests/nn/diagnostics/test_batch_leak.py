import pytest
import torch
from torch import nn

from lightning_trainingkit.nn.diagnostics.batch_leak import find_batch_leak

IMAGES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Reshaped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x).T.reshape(x.shape)


class OverBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x):
        return self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=0)), "1"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)), "1"),
        (nn.Sequential(Centred(), nn.Linear(4, 3)), "0"),
        (nn.Sequential(nn.Linear(4, 4), OverBatch()), "1.attention"),
        (nn.Sequential(nn.Linear(4, 4), Reshaped()), ""),
    ],
)
def test_a_leak_is_found_and_named(net, layer):
    torch.manual_seed(0)
    leak = find_batch_leak(net.eval(), net, IMAGES)
    assert leak is not None
    assert leak.layer == layer
    assert leak.statistics == (layer == "1" and isinstance(net[1], nn.BatchNorm1d))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(0.5), nn.LayerNorm(3)),
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.MultiheadAttention(2, 1, batch_first=True)),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    ],
)
def test_no_leak_where_images_stay_apart(net):
    class Net(nn.Module):
        def forward(self, x):
            if isinstance(net, nn.TransformerEncoderLayer):
                return net(x[:, None])[:, 0]
            if isinstance(net[-1], nn.MultiheadAttention):
                tokens = net[0](x)
                return net[1](tokens, tokens, tokens)[0].flatten(1)
            return net(x)

    net.eval()
    assert find_batch_leak(net, Net(), IMAGES) is None


def test_batches_of_dicts_and_the_targets_stay():
    net = nn.Linear(4, 3).eval()
    seen = []

    def output(batch):
        seen.append(batch)
        return net(batch["image"]) + batch["mask"].mean()

    masks = torch.rand(6, 2)
    assert find_batch_leak(net, output, {"image": IMAGES, "mask": masks}, keep=masks) is None
    assert torch.equal(seen[1]["mask"], masks)
    assert torch.equal(seen[1]["image"], IMAGES[:1].expand(6, 4))


@pytest.mark.parametrize(
    "graph", [torch.eye(6).roll(1, 0), torch.eye(6).to_sparse(), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])]
)
def test_nodes_of_a_graph_are_no_images(graph):
    def outputs(batch):
        edges = batch["graph"]
        dense = edges if edges.dtype != torch.int64 else torch.zeros(6, 6).index_put(tuple(edges), torch.ones(4))
        return dense.to_dense() @ batch["x"]

    assert find_batch_leak(nn.Identity(), outputs, {"x": IMAGES, "graph": graph}) is None


def test_as_many_features_as_images_are_no_graph():
    square = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    assert find_batch_leak(nn.Identity(), lambda x: x - x.mean(0), square) is not None

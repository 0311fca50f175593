from torch import nn

from lightning_trainingkit.nn.structure.layers_before import layers_before


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.second, self.after = (
            nn.Conv2d(3, 4, 1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
        )
        self.helper, self.helper_norm, self.unused = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        y = self.second(x)
        y = self.after(y) + y
        return (y, self.helper_norm(self.helper(x))) if self.training else y


def test_a_layer_counts_where_its_output_goes_to_the_module_alone():
    names = ["norm", "after", "helper_norm", "unused"]
    found = layers_before(Net(), names)
    assert [found[name].layers for name in names] == [("conv",), (), ("helper",), ()]
    assert found["after"].words == "second, whose output after and add take"
    assert found["unused"].words == "a forward that no trace shows"

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lightning_trainingkit.functional.logistic import fit_logistic


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_scikit_learn(l2, bias):
    data = load_digits()
    x, y = torch.from_numpy(data.data).double(), torch.from_numpy(data.target).long()
    weight, offset = fit_logistic(x, y, 10, l2, bias=bias, max_iter=2000)
    if bias:
        scaled = StandardScaler().fit_transform(data.data)
    else:
        scale = x.square().mean(0).sqrt()
        scaled = (x / torch.where(scale > 0, scale, 1)).numpy()
    theirs = LogisticRegression(C=1 / (l2 * len(y)), fit_intercept=bias, max_iter=5000, tol=1e-8).fit(scaled, y)
    ours = (x @ weight.T + offset).softmax(1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.predict_proba(scaled)), rtol=0, atol=2e-4)
    assert weight[:, 0].abs().max() == 0  # a pixel that is always 0
    assert bias or offset.abs().max() == 0


def test_scale_does_not_matter_and_float32_stays():
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    y = (x[:, 0] > 0).long()
    one, two = (fit_logistic(x * scale, y, 2, 1e-2) for scale in (1.0, 1000.0))
    torch.testing.assert_close(one[0], two[0] * 1000, rtol=1e-3, atol=1e-4)
    assert one[0].dtype == torch.float32
    with torch.inference_mode():
        again = fit_logistic(x.clone(), y.clone(), 2, 1e-2)
    torch.testing.assert_close(again[0], one[0])

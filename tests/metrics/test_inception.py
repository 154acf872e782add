"""FID and KID of torchmetrics, with a small network in Inception's place."""

import pytest
import torch
from torch import nn

from diffusion_lab.metrics.distances import fit_gaussian, frechet
from diffusion_lab.metrics.inception import Inception


class Features(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(3 * 8 * 8, 8, generator=generator) / 500)

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return x.flatten(1).float() @ self.matrix


def pixels(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)


def test_distances_are_those_of_the_same_features():
    training, test, samples = pixels(300, 0), pixels(100, 1), pixels(100, 2) // 2
    measure = Inception(Features(), real_images=200)
    found = measure(samples.float() / 127.5 - 1, training, test)
    net = Features()
    ours, real, held_out = (
        fit_gaussian(net(x.expand(-1, 3, -1, -1))) for x in (samples, training[:200], test)
    )
    assert found["fid"] == pytest.approx(frechet(ours, real), rel=1e-4)
    assert found["fid_real"] == pytest.approx(frechet(held_out, real), rel=1e-4)
    assert found["fid"] > 5 * found["fid_real"] and found["kid"] > found["kid_real"]


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^real_images=1"):
        Inception(real_images=1)
    with pytest.raises(ValueError, match="no such file"):
        Inception(weights=str(tmp_path / "nowhere.pth"))

"""How often the 95 % intervals hold the true value, by simulation on Gaussian features.

300 samples of 16 features; "perfect": of the distribution of the real images, "worse": shifted and
too narrow. The true value of a figure is its expectation at that number of samples: known for some,
else the mean over all repeats.
"""

import numpy as np
import pytest
import torch

from diffusion_lab.metrics.classes import class_shares
from diffusion_lab.metrics.distances import (
    fit_gaussian,
    frechet,
    frechet_jackknife,
    gaussian_kernel,
    kernel_reference,
    neighbours,
    squared_mmd,
)
from diffusion_lab.metrics.diversity import pairwise_distance, remaining_variance, vendi
from diffusion_lab.metrics.intervals import mean, random_groups
from diffusion_lab.metrics.memorisation import memorisation
from diffusion_lab.metrics.points import sliced_wasserstein_jackknife

N, D = 300, 16
REAL = torch.randn(3000, D, generator=torch.Generator().manual_seed(99))
WANTED = torch.tensor([3.0, 2.0, 2.0, 1.0, 1.0, 1.0])


class World:
    """What samples are compared with, fixed through all repeats."""

    def __init__(self, shift, scale):
        self.shift, self.scale = shift, scale
        self.gaussian = fit_gaussian(REAL)
        self.cubic = kernel_reference(REAL[:1000])
        self.wide = kernel_reference(REAL[:1000], gaussian_kernel(REAL))

    def draw(self, seed):
        generator = torch.Generator().manual_seed(1000 + seed)
        x = self.shift + self.scale * torch.randn(N, D, generator=generator)
        read = torch.multinomial(WANTED, N, replacement=True, generator=generator)
        held = torch.randn(N, generator=generator).exp()
        near = torch.randn(N, generator=generator).exp() * self.scale
        return x, read, held, near

    def estimates(self, seed):
        x, read, held, near = self.draw(seed)
        groups = random_groups(N)
        fd = frechet_jackknife(x, self.gaussian, groups)
        even = torch.full((N,), 1 / N, dtype=torch.float64)
        copies = memorisation(near, held, even, groups)
        _, entropy, variation = class_shares(read, WANTED, groups)
        return {
            "fd": fd,
            "fd_unbiased": fd.unbiased(),
            "kd": squared_mmd(x, self.cubic, groups),
            "mmd": squared_mmd(x, self.wide, groups),
            **neighbours(x, REAL[:N], groups)._asdict(),
            "vendi": vendi(x, groups),
            "remaining_variance": remaining_variance(x, REAL, None, None, groups),
            "pairwise_distance": pairwise_distance(x, groups),
            "class_entropy": entropy,
            "class_variation": variation,
            "closer_probability": copies.closer,
            "sw": sliced_wasserstein_jackknife(x[:, :2], REAL[:N, :2]),
        }


WORLDS = {"perfect": World(0.0, 1.0), "worse": World(0.3, 0.8)}


def coverage(world, repeats):
    """Share of intervals that hold the mean of all repeats (or the value known)."""
    found = [
        {name: one.interval() for name, one in world.estimates(seed).items()}
        for seed in range(repeats)
    ]
    known = {"closer_probability": 0.5} if world.scale == 1 else {}
    result = {}
    for name in found[0]:
        values, low, high = np.array([one[name] for one in found]).T
        true = known.get(name, values.mean())
        result[name] = float(((low <= true) & (true <= high)).mean())
    return result


@pytest.mark.parametrize("name", WORLDS)
def test_intervals_hold_the_true_value(name):
    repeats = 40
    # Four standard errors of a share of 95 % below, and nothing is gained by being too wide.
    least = 0.95 - 4 * (0.95 * 0.05 / repeats) ** 0.5
    for figure, share in coverage(WORLDS[name], repeats).items():
        assert share >= least, figure


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_coverage_of_2000_repeats(name):
    """Prints a table like that of `metrics.intervals`, of four times as many repeats."""
    for figure, share in coverage(WORLDS[name], 2000).items():
        print(f"{name:8} {figure:20} {share:.1%}")
        assert share >= 0.90, figure


def test_intervals_of_means_hold_the_mean():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(2000, 100))
    found = np.array([mean(row) for row in values])
    assert 0.93 <= np.mean((found[:, 1] <= 1) & (found[:, 2] >= 1)) <= 0.97


def test_the_value_without_bias_is_near_the_limit():
    """At 300 samples the bias of the distance is many times what is left of it."""
    world = WORLDS["worse"]
    limit = frechet(
        world.gaussian,
        type(world.gaussian)(np.full(D, world.shift), world.scale**2 * np.eye(D)),
    )
    estimates = [world.estimates(seed) for seed in range(40)]
    bias = np.mean([one["fd"].value for one in estimates]) - limit
    rest = np.mean([one["fd_unbiased"].value for one in estimates]) - limit
    assert bias > 0.1 and abs(rest) < bias / 4

"""Agreement with diffusers, whose float32 tables are replaced by ours so that algorithms meet."""

import pytest
import torch
from exact import Drawn, MixtureData, run

from diffusion_lab.diffusion.gaussian import eps_from, marginal
from diffusion_lab.diffusion.schedules import CosineBetas, LinearBetas, QuadraticBetas
from diffusion_lab.sampling.ancestral import DDIM, DDPM
from diffusion_lab.sampling.constraints import Clip
from diffusion_lab.sampling.grids import Leading, Trailing

diffusers = pytest.importorskip("diffusers")

MEANS = torch.tensor([[1.0, 0, 0.5, 0, -1, 0.2], [-1, 1, 0, 0.3, 0, 0], [0, -1, -1, 0, 1, 0.5]])
DATA = MixtureData(MEANS, 0.3)


def start(rows=64):
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def force(scheduler, schedule):
    """Give a diffusers scheduler our float64 tables."""
    abar = schedule.alpha_bar
    previous = torch.cat((torch.ones(1, dtype=torch.float64), abar[:-1]))
    scheduler.alphas_cumprod = abar
    scheduler.alphas = abar / previous
    scheduler.betas = 1 - scheduler.alphas
    scheduler.one = torch.ones((), dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def loop(scheduler, schedule, steps, x, generator, **step):
    """Their loop, with the exact noise prediction at each of their 0-based timesteps."""
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps.tolist():
        level = schedule((k + 1) / schedule.steps)
        eps = eps_from(x, DATA(x, level).x0, level)
        x = scheduler.step(eps, k, x, generator=generator, **step).prev_sample
    return x


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (LinearBetas(1000), {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
        (LinearBetas(300), {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}),
        (
            QuadraticBetas(300, 8.5e-4, 0.012),
            {"beta_start": 8.5e-4, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        ),
        (CosineBetas(1000), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_tables(schedule, settings):
    theirs = diffusers.DDPMScheduler(schedule.steps, **settings)
    assert (theirs.alphas_cumprod.double() - schedule.alpha_bar).abs().max() < 1e-6
    x0, eps = torch.randn(2, 5, 6, dtype=torch.float64)
    k = torch.tensor([0, 10, 99, 200, schedule.steps - 1])
    ours = marginal(x0, eps, schedule((k + 1).double() / schedule.steps))
    assert (force(theirs, schedule).add_noise(x0, eps, k) - ours).abs().max() < 1e-10


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("name", "fraction"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize("total", [50, 1000])
def test_ddpm(name, fraction, clip, total):
    schedule = LinearBetas(total)
    theirs = force(
        diffusers.DDPMScheduler(
            total, variance_type=name, clip_sample=clip, prediction_type="epsilon"
        ),
        schedule,
    )
    expected = loop(theirs, schedule, total, start(), torch.Generator().manual_seed(3))
    sampler, constraint = DDPM(variance_fraction=fraction), Clip()

    def denoise(x, level):
        out = DATA(x, level)
        return out._replace(x0=constraint(out.x0, level)) if clip else out

    ours = run(sampler, denoise, schedule, start(), Drawn(3)).x
    assert (ours - expected).abs().max() < 1e-10


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("grid", "spacing", "total", "steps"),
    [
        (Leading(), "leading", 1000, 50),
        (Leading(), "leading", 1000, 7),
        (Leading(), "leading", 300, 20),
        (Trailing(), "trailing", 1000, 50),
        (Trailing(), "trailing", 300, 20),
    ],
)
def test_ddim(grid, spacing, total, steps, eta):
    schedule = LinearBetas(total)
    theirs = force(
        diffusers.DDIMScheduler(total, clip_sample=False, timestep_spacing=spacing), schedule
    )
    expected = loop(theirs, schedule, steps, start(), torch.Generator().manual_seed(3), eta=eta)
    ours = run(DDIM(steps, grid, eta=eta), DATA, schedule, start(), Drawn(3)).x
    assert (ours - expected).abs().max() < 1e-10


@pytest.mark.parametrize(("spacing", "grid"), [("leading", Leading()), ("trailing", Trailing())])
@pytest.mark.parametrize("steps", [1, 10, 20, 50, 100])
def test_grids(spacing, grid, steps):
    theirs = diffusers.DDIMScheduler(1000, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = (grid(LinearBetas(1000), steps)[:-1] * 1000).round().long() - 1
    assert ours.tolist() == theirs.timesteps.tolist()

"""Where references are not followed: ours meets a closed form that they miss."""

import math
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import Constant, GaussianData, answering, ask, run
from libraries import in_float64, largest, load, start, then_zero, version
from scipy.stats import norm

from diffusion_lab.diffusion.bound import grey_log_probability
from diffusion_lab.diffusion.gaussian import eps_from, levels
from diffusion_lab.diffusion.model import Denoised
from diffusion_lab.diffusion.schedules import LinearBetas, RectifiedFlow, VarianceExploding
from diffusion_lab.sampling.ancestral import DDIM
from diffusion_lab.sampling.multistep import DPMSolverMultistep, UniPC
from diffusion_lab.sampling.spacing import Linspace, Trailing

GAUSSIAN = GaussianData([1, -2, 0.5, 0, 0.3, -0.7], [0.3, 1, 2, 0.5, 0.1, 1.5])


@pytest.mark.parametrize(
    ("spacing", "grid", "steps"),
    [
        ("linspace", Linspace(), 50),
        ("linspace", Linspace(), 10),
        ("trailing", Trailing(), 7),
        ("trailing", Trailing(), 30),
    ],
)
def test_ddim_of_diffusers_steps_past_its_own_timesteps(exclude, spacing, grid, steps):
    """On a Gaussian DDIM multiplies x_t - alpha_t mean by one number a step."""
    diffusers = pytest.importorskip("diffusers")
    schedule = LinearBetas(1000)
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False, timestep_spacing=spacing)
    scheduler.alphas_cumprod = schedule.alpha_bar
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(steps)
    times = then_zero((scheduler.timesteps.double() + 1) / 1000)
    assert torch.equal(times, grid(schedule, steps))
    path = levels(schedule(times))
    theirs = start()
    for k, t in zip(scheduler.timesteps.tolist(), path, strict=False):
        eps = eps_from(theirs, ask(GAUSSIAN, theirs, t).x0, t)
        theirs = scheduler.step(eps, k, theirs).prev_sample
    away = start() - path[0].alpha * GAUSSIAN.mean
    for t, s in pairwise(path):
        variance = t.alpha**2 * GAUSSIAN.std**2 + t.sigma**2
        covariance = s.alpha * t.alpha * GAUSSIAN.std**2 + s.sigma * t.sigma
        away = away * covariance / variance
    closed = GAUSSIAN.mean + away
    ours = run(DDIM(steps, grid), GAUSSIAN, schedule, start()).x
    exclude(
        f"DDIM, {spacing} spacing, {steps} of 1000 steps",
        version("diffusers"),
        largest(ours, closed),
        largest(theirs, closed),
        "`step` goes to t - T // S, not to the next of its own timesteps",
    )


def quadratic(lam):
    """An x0-hat that is quadratic in lambda = ln(alpha / sigma), whatever x_t is."""
    return torch.stack((1 + 0.5 * lam, lam**2 - 0.2 * lam, 0.3 - lam**2), -1)


def integral(low, high, eta):
    """Of the exact solution: (1 + eta) e^((1 + eta) (lambda - high)) x0-hat(lambda)."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    lam = low + (high - low) * (torch.as_tensor(nodes) + 1) / 2
    decay = (1 + eta) * torch.exp((1 + eta) * (lam - high))
    return ((high - low) / 2 * torch.as_tensor(weights) * decay) @ quadratic(lam)


SIGMAS = torch.tensor([4.0, 2.0, 0.9, 0.3, 0.12], dtype=torch.float64)


class Silent:
    def normal(self, like):
        return torch.zeros_like(like)


def third_order(eta, step):
    """Ours, theirs and the closed form after the first step of order 3, without noise.

    The step before it is theirs; the closed form goes on from there.
    """
    schedule = VarianceExploding(sigma_min=0.002, sigma_max=80)
    x = torch.zeros(1, 3, dtype=torch.float64)

    @answering
    def denoise(x_t, level):
        return Denoised(quadratic(-(level.sigma / level.alpha).log()).expand_as(x_t))

    times = schedule.time_of(-2 * SIGMAS[:4].log())
    sampler = DPMSolverMultistep(3, order=3, eta=eta)
    steps = list(sampler.trajectory(denoise, schedule, levels(schedule(times)), x, Silent()))
    low, high = float(-SIGMAS[2].log()), float(-SIGMAS[3].log())
    before = steps[1].x
    closed = math.exp(-(1 + eta) * (high - low)) * before + integral(low, high, eta)
    return largest(steps[2].x, closed), largest(step(x), closed)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_third_order_of_k_diffusion(exclude, eta):
    (sampling,) = load("k_diffusion", "sampling", absent=("torchdiffeq", "torchsde"))

    def denoise(x, sigma):
        return quadratic(-sigma[0].log()).expand_as(x)

    def step(x):
        return sampling.sample_dpmpp_3m_sde(
            denoise, x, SIGMAS[:4], disable=True, eta=eta, noise_sampler=lambda *_: 0 * x
        )

    ours, theirs = third_order(eta, step)
    exclude(
        f"DPM-Solver++(3M), eta {eta:g}, on an x0-hat quadratic in log-SNR",
        version("k-diffusion"),
        ours,
        theirs,
        "phi_3 weighs half the second derivative, so that the order is 2",
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_third_order_of_diffusers(exclude, eta):
    diffusers = pytest.importorskip("diffusers")
    module = import_module("diffusers.schedulers.scheduling_dpmsolver_multistep")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000,
        solver_order=3,
        solver_type="heun",
        algorithm_type="sde-dpmsolver++" if eta else "dpmsolver++",
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(20)
    scheduler.sigmas = scheduler.sigmas.double()
    scheduler.sigmas[:5] = SIGMAS

    def step(x):
        with in_float64(module):
            for k, sigma in zip(scheduler.timesteps, SIGMAS[:3], strict=False):
                x0 = quadratic(-sigma.log()).expand_as(x)
                noise = {"variance_noise": torch.zeros_like(x)} if eta else {}
                x = scheduler.step(x0, k, x, **noise).prev_sample
        return x * torch.sqrt(1 + SIGMAS[3] ** 2)  # from alpha^2 + sigma^2 = 1 to alpha = 1

    ours, theirs = third_order(eta, step)
    why = "phi_3 weighs half the second derivative, so that the order is 2"
    exclude(
        f"DPM-Solver++(3M), eta {eta:g}, on an x0-hat quadratic in log-SNR",
        version("diffusers"),
        ours,
        theirs,
        why + ("; its constant 1/2 has the wrong sign too" if eta else ""),
    )


def test_last_step_of_unipc_bh1(exclude):
    """Where x0-hat is constant every sampler must end in it."""
    diffusers = pytest.importorskip("diffusers")
    schedule, x0 = LinearBetas(1000), start(std=0.5, seed=3)
    scheduler = diffusers.UniPCMultistepScheduler(
        1000, solver_type="bh1", prediction_type="sample", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    theirs = start()
    for k in scheduler.timesteps:
        theirs = scheduler.step(x0, k, theirs).prev_sample
    ours = run(UniPC(10, Trailing(), variant="bh1"), Constant(x0), schedule, start()).x
    exclude(
        "UniPC, bh1, last step to sigma 0",
        version("diffusers"),
        largest(ours, x0),
        largest(theirs, x0),
        "B(h) = h is infinite there and multiplies 0",
    )


def test_shift_of_diffusers_is_applied_twice(exclude):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=3.0)
    scheduler.set_timesteps(10)
    u = torch.linspace(1, 1e-3, 10, dtype=torch.float64)
    closed = 3 * u / (1 + 2 * u)
    schedule = RectifiedFlow(shift=3.0)
    exclude(
        "Flow sigmas, shift 3, 10 steps from t = 1 to 1/1000",
        version("diffusers"),
        largest(schedule(Linspace()(schedule, 10)[:-1]).sigma, closed),
        largest(scheduler.sigmas[:-1], closed),
        "the shift is applied twice to the clean end of the grid",
    )


def test_distribution_function_of_lucidrains_is_approximate(exclude):
    (learned,) = load(
        "denoising_diffusion_pytorch",
        "learned_gaussian_diffusion",
        absent=("accelerate", "ema_pytorch", "pytorch_fid"),
    )
    x0 = (torch.arange(5, 251, 5, dtype=torch.float64) / 127.5 - 1)[:, None]
    mean, log_var = 0.3 * x0, torch.full_like(x0, 2 * math.log(0.2))
    ends = [norm.cdf(((x0 - mean + side / 255) / 0.2).numpy()) for side in (1, -1)]
    closed = torch.as_tensor(ends[0] - ends[1]).log()
    theirs = learned.discretized_gaussian_log_likelihood(x0, means=mean, log_scales=0.5 * log_var)
    exclude(
        "Log probability of grey values",
        version("denoising-diffusion-pytorch"),
        largest(grey_log_probability(x0, mean, log_var), closed),
        largest(theirs, closed),
        "the normal distribution function is approximated by a tanh",
    )

"""Agreement with k-diffusion, whose samplers work in sigma space: alpha = 1, sigma = sigma."""

import pytest
import torch
from exact import Drawn, ask, run
from libraries import (
    DATA,
    Listed,
    amended,
    at_sigma,
    in_float64,
    largest,
    load,
    relative,
    start,
    then_zero,
    version,
)

from diffusion_lab.diffusion.gaussian import combine
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import EDM, V
from diffusion_lab.diffusion.schedules import ContinuousCosine, ContinuousVP, VarianceExploding
from diffusion_lab.diffusion.weights import EDMWeight
from diffusion_lab.sampling.ancestral import DDIM
from diffusion_lab.sampling.multistep import DPMSolver2S, DPMSolverMultistep
from diffusion_lab.sampling.ode import VE, AdamsBashforth, Heun
from diffusion_lab.sampling.spacing import Karras, Linspace, UniformLogSNR

sampling, layers, external = load(
    "k_diffusion",
    "sampling",
    "layers",
    "external",
    absent=("torchdiffeq", "torchsde", "dctorch"),
)
KD = version("k-diffusion")

SCHEDULE = VarianceExploding(sigma_min=0.002, sigma_max=80.0)
LADDER = "Karras sigmas 80 to 0.002, then 0"


def sigmas(steps=18, largest=80.0):
    with in_float64():
        return sampling.get_sigmas_karras(steps, 0.002, largest)


def denoiser(x, sigma):
    """Theirs: x0-hat of x at sigma (B,)."""
    return ask(DATA, x, at_sigma(sigma[0])).x0


def times(sigma, schedule=SCHEDULE):
    return then_zero(schedule.time_of(-2 * sigma[sigma > 0].log()))


def test_euler(compare):
    x, s = start(std=80), sigmas()
    theirs = sampling.sample_euler(denoiser, x, s, disable=True)
    ours = run(DDIM(18), DATA, SCHEDULE, x, times=times(s)).x
    settings = f"`sample_euler`, 18 steps, {LADDER}; ours DDIM(eta=0)"
    compare("Euler", KD, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_euler_ancestral(compare, eta):
    x, s, drawn = start(std=80), sigmas(), Drawn(5)
    theirs = sampling.sample_euler_ancestral(
        denoiser, x, s, disable=True, eta=eta, noise_sampler=lambda *_: drawn.normal(x)
    )
    ours = run(DDIM(18, eta=eta), DATA, SCHEDULE, x, Drawn(5), times(s)).x
    settings = f"`sample_euler_ancestral`, eta {eta:g}, 18 steps; ours DDIM(eta={eta:g})"
    compare("Euler ancestral", KD, settings, largest(ours, theirs), 1e-10)


def test_heun(compare):
    x, s = start(std=80), sigmas()
    theirs = sampling.sample_heun(denoiser, x, s, disable=True)
    ours = run(Heun(18, frame=VE()), DATA, SCHEDULE, x, times=times(s)).x
    settings = f"`sample_heun`, 18 steps, {LADDER}"
    compare("Heun", KD, settings, largest(ours, theirs), 1e-10)


def test_heun_with_churn(compare):
    x, s = start(std=80), sigmas()
    churn = {"s_churn": 6.0, "s_tmin": 0.0, "s_tmax": 50.0, "s_noise": 1.003}
    torch.manual_seed(7)
    theirs = sampling.sample_heun(denoiser, x, s, disable=True, **churn)
    torch.manual_seed(7)
    drawn = [torch.randn_like(x) for _ in s[:-1]]  # they draw at every step, we where it is used
    used = [z for z, sigma in zip(drawn, s[:-1], strict=True) if sigma <= 50]
    sampler = Heun(18, frame=VE(), churn=6.0, churn_low=0.0, churn_high=50.0, churn_noise=1.003)
    schedule = VarianceExploding(sigma_min=0.002, sigma_max=160.0)
    ours = run(sampler, DATA, schedule, x, Listed(used), times(s, schedule)).x
    settings = "`sample_heun`, 18 steps, s_churn 6 below 50, s_noise 1.003"
    compare("Heun with churn", KD, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms(compare, order):
    x, s = start(std=80), sigmas()[:-1]
    theirs = sampling.sample_lms(denoiser, x, s, disable=True, order=order)
    ours = run(
        AdamsBashforth(17, frame=VE(), order=order), DATA, SCHEDULE, x, times=times(s)[:-1]
    ).x
    settings = "`sample_lms`, orders 1 to 4, Karras sigmas 80 to 0.002 (without the step to 0)"
    compare("LMS = Adams-Bashforth", KD, settings, largest(ours, theirs), 1e-10)


def test_dpmpp_2m(compare):
    x, s = start(std=80), sigmas()
    theirs = sampling.sample_dpmpp_2m(denoiser, x, s, disable=True)
    ours = run(DPMSolverMultistep(18, order=2), DATA, SCHEDULE, x, times=times(s)).x
    settings = f"`sample_dpmpp_2m`, 18 steps, {LADDER}"
    compare("DPM-Solver++(2M)", KD, settings, largest(ours, theirs), 1e-10)


def test_dpmpp_2s(compare):
    x, s = start(std=80), sigmas()
    theirs = sampling.sample_dpmpp_2s_ancestral(denoiser, x, s, disable=True, eta=0.0)
    ours = run(DPMSolver2S(18), DATA, SCHEDULE, x, times=times(s)).x
    settings = "`sample_dpmpp_2s_ancestral`, eta 0, 18 steps"
    compare("DPM-Solver++(2S)", KD, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rule", ["midpoint", "heun"])
def test_dpmpp_2m_sde(compare, eta, rule):
    x, s, drawn = start(std=80), sigmas(), Drawn(5)
    theirs = sampling.sample_dpmpp_2m_sde(
        denoiser,
        x,
        s,
        disable=True,
        eta=eta,
        noise_sampler=lambda *_: drawn.normal(x),
        solver_type=rule,
    )
    sampler = DPMSolverMultistep(18, order=2, eta=eta, rule=rule)
    ours = run(sampler, DATA, SCHEDULE, x, Drawn(5), times(s)).x
    settings = f"`sample_dpmpp_2m_sde`, {rule}, eta 0, 0.5 and 1, 18 steps"
    compare("DPM-Solver++(2M) SDE", KD, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_3m_sde(compare, eta):
    x, s, drawn = start(std=80), sigmas(), Drawn(5)
    mended = amended(sampling.sample_dpmpp_3m_sde, "- phi_3 * d2", "- 2 * phi_3 * d2")
    theirs = mended(denoiser, x, s, disable=True, eta=eta, noise_sampler=lambda *_: drawn.normal(x))
    ours = run(DPMSolverMultistep(18, order=3, eta=eta), DATA, SCHEDULE, x, Drawn(5), times(s)).x
    settings = "`sample_dpmpp_3m_sde` with phi_3 doubled (see below), eta 0, 0.5 and 1, 18 steps"
    compare("DPM-Solver++(3M) SDE", KD, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("steps", [2, 10, 18, 50])
def test_karras_grid(compare, steps):
    ours = SCHEDULE(Karras()(SCHEDULE, steps)[:-1]).sigma
    theirs = sampling.get_sigmas_karras(steps, 0.002, 80.0)[:-1]
    settings = "`get_sigmas_karras`, rho 7, 80 to 0.002, 2 to 50 steps; relative"
    compare("Karras grid", KD, settings, relative(ours, theirs), 1e-5)
    compare("Karras grid, in float64", KD, settings, relative(ours, sigmas(steps)[:-1]), 1e-10)


def test_exponential_grid(compare):
    with in_float64():
        theirs = sampling.get_sigmas_exponential(18, 0.002, 80.0)[:-1]
    ours = SCHEDULE(UniformLogSNR()(SCHEDULE, 18)[:-1]).sigma
    settings = "`get_sigmas_exponential`, 80 to 0.002, 18 steps; relative, in float64"
    compare("Grid uniform in log-SNR", KD, settings, relative(ours, theirs), 1e-10)


def test_vp_grid(compare):
    schedule = ContinuousVP()
    with in_float64():
        theirs = sampling.get_sigmas_vp(18)[:-1]
    level = schedule(Linspace()(schedule, 18)[:-1])
    settings = "`get_sigmas_vp`, beta 0.1 to 20, t = 1 to 0.001, 18 steps; relative, in float64"
    compare("VP-SDE sigmas", KD, settings, relative(level.sigma / level.alpha, theirs), 1e-10)


class Net(torch.nn.Module):
    """A fixed function of the scaled input."""

    def forward(self, x, *_):
        return torch.tanh(1.3 * x) + 0.2 * x.roll(1, 1)


@pytest.mark.parametrize("data_std", [0.5, 1.0])
def test_edm_preconditioning(compare, data_std):
    x, s = start(8, std=3), torch.tensor([0.002, 0.03, 0.2, 0.5, 1, 4, 20, 80]).double()
    theirs = layers.Denoiser(Net(), sigma_data=data_std)
    ours = GaussianDiffusion(Net(), SCHEDULE, EDM(data_std), data_std=data_std, input_scaling=True)
    level = SCHEDULE(s / 80)
    settings = "`Denoiser`, sigma_data 0.5 and 1, sigma 0.002 to 80"
    difference = largest(ask(ours, x, level).x0, theirs(x, s))
    compare("EDM preconditioning", KD, settings, difference, 1e-10)
    noise = start(8, seed=2)
    error = ask(ours, x + combine((s, noise)), level).raw - ours.target(x, noise, level)
    weight = EDMWeight(data_std).on_target(level, ours.parameterization)
    difference = largest(weight * (error**2).mean(1), theirs.loss(x, noise, s))
    compare("EDM loss", KD, settings, difference, 1e-10)


def test_v_denoiser(compare):
    schedule = ContinuousCosine()
    t = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99]).double()
    level, x = schedule(t), start(7)
    sigma = level.sigma / level.alpha
    theirs = external.VDenoiser(Net())
    ours = ask(GaussianDiffusion(Net(), schedule, V()), x, level).x0
    difference = largest(ours, theirs(combine((1 / level.alpha, x)), sigma))
    compare("v to x0", KD, "`VDenoiser`, cosine schedule, 7 times", difference, 1e-10)
    settings = "`VDenoiser.t_to_sigma` and `sigma_to_t`; relative"
    difference = max(
        relative(sigma, theirs.t_to_sigma(t)),
        relative(schedule.time_of(level.log_snr), theirs.sigma_to_t(sigma)),
    )
    compare("Continuous cosine schedule", KD, settings, difference, 1e-10)

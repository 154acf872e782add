"""Agreement with denoising-diffusion-pytorch (lucidrains), its float32 buffers in float64."""

import math

import pytest
import torch
from exact import answering, ask, run
from libraries import Global, in_float64, largest, load, relative, start, version

from diffusion_lab.diffusion.bound import bound_term, normal_kl
from diffusion_lab.diffusion.gaussian import Level, eps_from, marginal, posterior
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import EDM, X0, Eps, V
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    CosineBetas,
    LinearBetas,
    SigmoidBetas,
    VarianceExploding,
)
from diffusion_lab.diffusion.weights import EDMWeight, MinSNR
from diffusion_lab.sampling.ancestral import DDIM, DDPM
from diffusion_lab.sampling.constraints import Clip
from diffusion_lab.sampling.multistep import DPMSolverMultistep
from diffusion_lab.sampling.ode import VE, Heun
from diffusion_lab.sampling.pipeline import final_state, trajectory
from diffusion_lab.sampling.sampler import Here
from diffusion_lab.sampling.spacing import Karras, Trailing

ddpm, learned, edm, continuous, simple = load(
    "denoising_diffusion_pytorch",
    "denoising_diffusion_pytorch",
    "learned_gaussian_diffusion",
    "elucidated_diffusion",
    "continuous_time_gaussian_diffusion",
    "simple_diffusion",
    absent=("accelerate", "ema_pytorch", "pytorch_fid"),
)
LUCID = version("denoising-diffusion-pytorch")

SHAPE = (1, 2, 3)


class Net(torch.nn.Module):
    """A fixed function of the image, with what lucidrains asks of a network."""

    channels = out_dim = 1
    self_condition = False
    random_or_learned_sinusoidal_cond = False

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x, *_):
        return torch.tanh(1.3 * x) + 0.2 * x.roll(1, -1)


class Fourier(Net):
    random_or_learned_sinusoidal_cond = True


class Learned(Net):
    """A network that says a variance too."""

    out_dim = 2

    def forward(self, x, *_):
        return torch.cat((super().forward(x), torch.sin(2 * x)), dim=1)


def theirs_of(net=None, kind=None, **settings):
    """Their diffusion on images (1, 2, 3), all buffers in float64."""
    kind = ddpm.GaussianDiffusion if kind is None else kind
    net = Net() if net is None else net
    with in_float64(ddpm):
        return kind(net, image_size=(2, 3), auto_normalize=False, **settings)


def images(rows=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *SHAPE, generator=generator, dtype=torch.float64)


SCHEDULES = [
    ("linear", LinearBetas(400, scaled=True)),
    ("cosine", CosineBetas(400)),
    ("sigmoid", SigmoidBetas(400)),
]


@pytest.mark.parametrize(("name", "ours"), SCHEDULES)
def test_schedules(compare, name, ours):
    theirs = theirs_of(timesteps=400, beta_schedule=name)
    note = ", betas scaled by 1000/T" if name == "linear" else ""
    settings = f"`{name}_beta_schedule`, T 400{note}; alpha-bar, in float64"
    difference = largest(ours.alpha_bar, theirs.alphas_cumprod)
    compare(f"{name.capitalize()} schedule", LUCID, settings, difference, 1e-10)


@pytest.mark.parametrize(("name", "schedule"), SCHEDULES[:2])
def test_posterior(compare, name, schedule):
    theirs = theirs_of(timesteps=400, beta_schedule=name)
    t = torch.arange(400)
    c_t, c_0, variance = posterior(schedule(t.double() / 400), schedule((t + 1).double() / 400))
    settings = f"`{name}` buffers, T 400, in float64"
    difference = max(
        largest(c_0, theirs.posterior_mean_coef1), largest(c_t, theirs.posterior_mean_coef2)
    )
    compare("Posterior mean coefficients", LUCID, settings, difference, 1e-10)
    difference = largest(variance, theirs.posterior_variance)
    compare("Posterior variance", LUCID, settings, difference, 1e-10)


def test_marginal_and_targets(compare):
    schedule, theirs = LinearBetas(1000), theirs_of(beta_schedule="linear")
    x0, eps = images(), images(seed=1)
    k = torch.tensor([0, 10, 99, 500, 999])
    level = schedule((k + 1).double() / 1000)
    x_t = marginal(x0, eps, level)
    difference = largest(x_t, theirs.q_sample(x0, k, eps))
    compare("q(x_t given x0)", LUCID, "`q_sample`, linear, T 1000, in float64", difference, 1e-10)
    v = GaussianDiffusion(Net(), schedule, V()).target(x0, eps, level)
    settings = "`predict_v`, linear, T 1000, in float64"
    compare("v target", LUCID, settings, largest(v, theirs.predict_v(x0, k, eps)), 1e-10)
    difference = largest(eps_from(x_t, x0, level), theirs.predict_noise_from_start(x_t, k, x0))
    settings = "`predict_noise_from_start`, linear, T 1000, in float64"
    compare("Noise from x0", LUCID, settings, difference, 1e-9)
    raw = Net()(x_t)
    for parameterization, name in ((Eps(), "noise"), (V(), "v")):
        ours = ask(GaussianDiffusion(Net(), schedule, parameterization), x_t, level).x0
        guess = getattr(theirs, f"predict_start_from_{name}")(x_t, k, raw)
        settings = f"`predict_start_from_{name}`, linear, T 1000, in float64"
        compare(f"x0 from {name}", LUCID, settings, largest(ours, guess), 1e-10)


@pytest.mark.parametrize(
    ("objective", "target"), [("pred_noise", Eps()), ("pred_x0", X0()), ("pred_v", V())]
)
def test_min_snr(compare, objective, target):
    schedule = LinearBetas(400, scaled=True)
    theirs = theirs_of(
        timesteps=400, beta_schedule="linear", objective=objective, min_snr_loss_weight=True
    )
    level = schedule((torch.arange(400).double() + 1) / 400)
    difference = largest(MinSNR(5.0).on_target(level, target), theirs.loss_weight)
    settings = f"`loss_weight`, {objective}, gamma 5, linear, T 400, in float64"
    compare("min-SNR weight", LUCID, settings, difference, 1e-10)


def ours_of(schedule, parameterization=None):
    """Our denoiser of the same network, clipped as theirs always is."""
    model = GaussianDiffusion(Net(), schedule, parameterization or V())

    @answering
    def denoise(x, level):
        return Denoised(Clip()(ask(model, x, level).x0, level))

    return denoise


@torch.no_grad()
def test_ddpm(compare):
    schedule = CosineBetas(100)
    theirs = theirs_of(timesteps=100, beta_schedule="cosine", objective="pred_v")
    torch.manual_seed(3)
    with in_float64(ddpm):
        expected = theirs.p_sample_loop((16, *SHAPE))
    torch.manual_seed(3)
    x = torch.randn(16, *SHAPE, dtype=torch.float64)
    ours = run(DDPM(), ours_of(schedule), schedule, x, Global()).x
    settings = "`p_sample_loop`, cosine, T 100, v, clipped, in float64"
    compare("DDPM, small variance", LUCID, settings, largest(ours, expected), 1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@torch.no_grad()
def test_ddim(compare, eta):
    schedule = CosineBetas(1000)
    theirs = theirs_of(
        sampling_timesteps=50, beta_schedule="cosine", objective="pred_v", ddim_sampling_eta=eta
    )
    torch.manual_seed(3)
    with in_float64(ddpm):
        expected = theirs.ddim_sample((16, *SHAPE))
    torch.manual_seed(3)
    x = torch.randn(16, *SHAPE, dtype=torch.float64)
    ours = run(DDIM(50, Trailing(), eta=eta), ours_of(schedule), schedule, x, Global()).x
    settings = "`ddim_sample`, 50 of 1000 steps, eta 0, 0.7 and 1, v, clipped, in float64"
    compare("DDIM", LUCID, settings, largest(ours, expected), 1e-10)


@torch.no_grad()
def test_learned_variance(compare):
    """The mean, the variance, and the bound's terms of a network that says its variance."""
    schedule = LinearBetas(1000)
    theirs = theirs_of(
        Learned(), learned.LearnedGaussianDiffusion, beta_schedule="linear", objective="pred_noise"
    )
    k = torch.tensor([1, 20, 300, 700, 999])
    t, s = (schedule((k + i).double() / 1000) for i in (1, 0))
    x0, eps = images(), images(seed=1)
    x_t = marginal(x0, eps, t)
    denoised = ask(GaussianDiffusion(Learned(), schedule, Eps()), x_t, t)
    mean, variance, _, _ = theirs.p_mean_variance(x=x_t, t=k, clip_denoised=False)
    ours = torch.cat(
        [
            DDPM(variance_fraction=None)
            .step(
                lambda _, i=i: Denoised(
                    denoised.x0[i : i + 1], None, denoised.variance_fraction[i : i + 1]
                ),
                Here(x_t[i : i + 1], Level(*(part[i] for part in t)), (), schedule, Ones()),
                Level(*(part[i] for part in s)),
            )
            .x
            for i in range(5)
        ]
    )
    settings = "`LearnedGaussianDiffusion.p_mean_variance`, linear, T 1000, in float64"
    difference = largest(ours, mean + variance.sqrt())
    compare("Mean and learned variance of a step", LUCID, settings, difference, 1e-10)
    totals = []
    for weight in (0.0, 1.0):
        theirs.vb_loss_weight = weight
        totals.append(theirs.p_losses(x0, k, eps, loss_reduction="none"))
    bits = bound_term(x0, x_t, s, t, denoised) / math.log(2)
    settings = (
        "`LearnedGaussianDiffusion.p_losses`, steps 2 to 1000, bits per dimension, in float64"
    )
    difference = largest(bits, totals[1] - totals[0])
    compare("Terms of the variational bound", LUCID, settings, difference, 1e-9)
    a, b, c, d = images(4).unbind()
    difference = largest(normal_kl(a, b, c, d), learned.normal_kl(a, b, c, d))
    compare("KL of two normals", LUCID, "`normal_kl`", difference, 1e-10)


class Ones:
    def normal(self, like):
        return torch.ones_like(like)


def elucidated(**settings):
    return edm.ElucidatedDiffusion(Fourier(), image_size=4, channels=1, **settings)


def our_edm(sigma_max=80.0):
    return GaussianDiffusion(
        Fourier(),
        VarianceExploding(sigma_min=0.002, sigma_max=sigma_max),
        EDM(0.5),
        data_std=0.5,
        input_scaling=True,
    )


@torch.no_grad()
def test_edm(compare):
    theirs, ours = elucidated(), our_edm()
    sigma = torch.tensor([0.002, 0.05, 0.5, 3, 80], dtype=torch.float64)
    level = ours.schedule(sigma / 80)
    x = start(5).view(5, 1, 2, 3)
    difference = largest(ask(ours, x, level).x0, theirs.preconditioned_network_forward(x, sigma))
    settings = "`preconditioned_network_forward`, sigma_data 0.5, sigma 0.002 to 80"
    compare("EDM preconditioning", LUCID, settings, difference, 1e-10)
    difference = largest(ours.schedule.conditioning(level), theirs.c_noise(sigma))
    compare("EDM c_noise", LUCID, "`c_noise`", difference, 1e-10)
    difference = relative(EDMWeight(0.5).on_x0(level), theirs.loss_weight(sigma))
    compare("EDM loss weight", LUCID, "`loss_weight`, sigma_data 0.5; relative", difference, 1e-10)
    with in_float64(edm):
        grid = theirs.sample_schedule(18)[:-1]
    difference = relative(ours.schedule(Karras()(ours.schedule, 18)[:-1]).sigma, grid)
    settings = "`sample_schedule`, 18 steps; relative, in float64"
    compare("Karras grid", LUCID, settings, difference, 1e-10)


@torch.no_grad()
def test_edm_samplers(compare):
    """Their whole runs, starting noise included."""
    theirs, ours = elucidated(S_churn=0.0), our_edm()
    arguments = {"shape": (1, 4, 4), "num_samples": 8, "noise": Global()}
    for name, sampler in (
        ("Heun", Heun(18, Karras(), VE())),
        ("DPM-Solver++(2M)", DPMSolverMultistep(18, Karras())),
    ):
        torch.manual_seed(3)
        with in_float64(edm):
            if name == "Heun":
                expected = theirs.sample(8, 18, clamp=False)
            else:
                expected = theirs.sample_using_dpmpp(8, 18)
        torch.manual_seed(3)
        images = (final_state(trajectory(ours, sampler, **arguments)).clamp(-1, 1) + 1) / 2
        function = "sample" if name == "Heun" else "sample_using_dpmpp"
        settings = f"`ElucidatedDiffusion.{function}`, 18 steps, no churn, in float64"
        compare(f"EDM, {name}", LUCID, settings, largest(images, expected), 1e-10)


def test_continuous_schedules(compare):
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    difference = largest(ContinuousCosine()(t).log_snr, continuous.alpha_cosine_log_snr(t, s=0.0))
    settings = "`alpha_cosine_log_snr`, no offset; log-SNR"
    compare("Continuous cosine schedule", LUCID, settings, difference, 1e-10)
    low, high = (math.atan(math.exp(-0.5 * end)) for end in (15, -15))
    inner = (low + t * (high - low)) * 2 / math.pi  # their ends are at log-SNR 15 and -15
    shifted = simple.logsnr_schedule_shifted(simple.logsnr_schedule_cosine, 128, 64)
    difference = largest(ContinuousCosine(shift=2.0)(inner).log_snr, shifted(t))
    settings = "`logsnr_schedule_shifted`, 128 for 64 pixels (shift 2); log-SNR"
    compare("Shifted cosine schedule", LUCID, settings, difference, 1e-10)

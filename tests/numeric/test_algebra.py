import inspect
import itertools

import pytest
import torch
from exact import Drawn, ask, loss_of
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lab.diffusion.compatibility import terminal_mismatch
from diffusion_lab.diffusion.gaussian import (
    Level,
    combine,
    eps_from,
    levels,
    marginal,
    posterior,
    transition,
)
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.objectives import Denoising, Regression, VariationalBound
from diffusion_lab.diffusion.parameterizations import X0, Eps, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    ContinuousVP,
    CosineBetas,
    LinearBetas,
    QuadraticBetas,
    RectifiedFlow,
    SigmoidBetas,
    VarianceExploding,
)
from diffusion_lab.diffusion.terms import RegressionTerm
from diffusion_lab.diffusion.times import (
    ImportanceTime,
    LogitNormalTime,
    LogNormalSigma,
    UniformTime,
)
from diffusion_lab.diffusion.weights import (
    AbsoluteError,
    ConstantWeight,
    HuberError,
    MinSNR,
    SigmoidWeight,
    SquaredError,
)
from diffusion_lab.random import seeded_generator
from diffusion_lab.sampling.constraints import DynamicThreshold
from diffusion_lab.sampling.guidance.classifier_free import Rescaled
from diffusion_lab.sampling.spacing import Karras

TARGETS = [Eps(), X0(), V(), Velocity()]
SCHEDULES = [LinearBetas(300), CosineBetas(50), ContinuousCosine(), RectifiedFlow()]
LEGAL = [
    (target, schedule)
    for target, schedule in itertools.product(TARGETS, SCHEDULES)
    if not (isinstance(target, Eps) and float(schedule(1.0).alpha) == 0)
]


class Says(torch.nn.Module):
    """A network that gives a fixed answer and remembers what it was asked."""

    num_classes = None

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, label=None):
        self.asked = (x, c_noise, label)
        return torch.zeros_like(x) if self.answer is None else self.answer


@given(st.floats(0.01, 0.98), st.floats(0.001, 0.99), st.integers(0, 3), st.integers(0, 100))
def test_bayes_rule_on_log_densities(t, fraction, which, seed):
    """q(x_s | x_t, x0) q(x_t | x0) = q(x_t | x_s) q(x_s | x0)."""
    schedule = SCHEDULES[which]
    s_level, t_level = schedule(t * fraction), schedule(t)
    if float(s_level.sigma) < 1e-3:
        return
    x0, x_s, x_t = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)).double()

    def log_normal(x, mean, variance):
        return torch.distributions.Normal(mean, variance**0.5).log_prob(x).sum()

    r, v = transition(s_level, t_level)
    if float(v) < 1e-9:
        return
    c_t, c_0, variance = posterior(s_level, t_level)
    left = log_normal(x_s, c_t * x_t + c_0 * x0, variance)
    left = left + log_normal(x_t, t_level.alpha * x0, t_level.sigma**2)
    right = log_normal(x_t, r * x_s, v) + log_normal(x_s, s_level.alpha * x0, s_level.sigma**2)
    assert abs(float(left - right)) < 1e-7 * (1 + abs(float(left)))


@given(st.floats(0.02, 0.999), st.integers(0, 1000))
def test_every_target_round_trips(t, seed):
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    eps = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    for target, schedule in LEGAL:
        level = schedule(torch.full((4,), t, dtype=torch.float64))
        net = Says()
        model = GaussianDiffusion(net, schedule, target, data_mean=0.3, data_std=0.6)
        net.answer = model.target(x0, eps, level)
        x_t = marginal(x0, eps, level)
        scale = float(1 / model.parameterization.determinant(level).abs().min())
        assert (ask(model, x_t, level).x0 - x0).abs().max() < 1e-14 * (1 + scale) * 10
        assert (eps_from(x_t, x0, level) - eps).abs().max() < 1e-12 / t


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_determinants(schedule):
    level = schedule(torch.linspace(0.01, 1, 50, dtype=torch.float64))
    a, s = level.alpha, level.sigma
    for target, expected in zip(TARGETS, (a, -s, a**2 + s**2, a + s), strict=True):
        assert torch.allclose(target.determinant(level), expected, atol=1e-15)


@pytest.mark.parametrize("schedule", [ContinuousCosine(), ContinuousCosine(100), RectifiedFlow()])
def test_eps_is_refused_where_alpha_is_zero(schedule):
    with pytest.raises(ValueError, match="alpha is 0"):
        GaussianDiffusion(Says(), schedule, Eps())


def test_definitions_of_the_targets():
    x0, eps = torch.randn(2, 3, 4, dtype=torch.float64)
    level = CosineBetas(100)(torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64))
    a, s = level.alpha[:, None], level.sigma[:, None]
    expected = (eps, x0, a * eps - s * x0, eps - x0)
    for target, value in zip(TARGETS, expected, strict=True):
        model = GaussianDiffusion(Says(), CosineBetas(100), target)
        assert torch.allclose(model.target(x0, eps, level), value, atol=1e-14)


def test_loss_weights_agree_across_targets():
    """eps-MSE = SNR x0-MSE, v-MSE = (SNR + 1) x0-MSE, and min-SNR per target (NUMERICS 10)."""
    level = LinearBetas(1000)(torch.linspace(0.01, 1, 64, dtype=torch.float64))
    snr, gamma = (level.alpha / level.sigma) ** 2, 5.0
    cut = snr.clamp(max=gamma)
    weight = MinSNR(gamma)
    assert torch.allclose(weight.on_target(level, Eps()), cut / snr)
    assert torch.allclose(weight.on_target(level, X0()), cut)
    assert torch.allclose(weight.on_target(level, V()), cut / (snr + 1))
    for target, factor in ((Eps(), snr), (V(), snr + 1)):
        d = target.determinant(level)
        assert torch.allclose((d / level.sigma) ** 2, factor)


@pytest.mark.parametrize(("target", "schedule"), LEGAL)
def test_loss_of_a_silent_network_is_the_second_moment_of_the_target(target, schedule):
    x0 = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    objective = Regression(UniformTime(), ConstantWeight(), SquaredError())
    loss = loss_of(objective, GaussianDiffusion(Says(), schedule, target), x0, Drawn(2))
    assert loss.shape == (4000,)
    level = schedule(torch.linspace(schedule.t_min, 1, 4001, dtype=torch.float64))
    a, b = target.weights(level)
    expected = float((a**2 + b**2).mean())
    standard_error = float(loss.std()) / 4000**0.5
    assert abs(float(loss.mean()) - expected) < 4 * standard_error + 2e-3


def test_weight_reaches_the_loss():
    x0, schedule = torch.randn(16, 8).double(), LinearBetas(100)
    model = GaussianDiffusion(Says(), schedule, Eps())
    plain = loss_of(
        Regression(UniformTime(), ConstantWeight(), SquaredError()), model, x0, Drawn(3)
    )
    weighted = loss_of(Regression(UniformTime(), MinSNR(5.0), SquaredError()), model, x0, Drawn(3))
    level = schedule(UniformTime()(schedule, Drawn(3), 16))
    assert torch.allclose(weighted, plain * MinSNR(5.0).on_target(level, Eps()))


def test_errors():
    p, q = torch.tensor([0.0, 0.5, 3.0]), torch.zeros(3)
    assert SquaredError()(p, q).tolist() == [0, 0.25, 9]
    assert AbsoluteError()(p, q).tolist() == [0, 0.5, 3]
    assert HuberError(1.0)(p, q).tolist() == [0, 0.25, 5]


def test_uniform_time_visits_every_step_equally():
    schedule = LinearBetas(20)
    t = UniformTime()(schedule, Drawn(), 20_000)
    counts = torch.bincount((t * 20).round().long(), minlength=21)
    assert counts[0] == 0
    chi_square = float(((counts[1:] - 1000.0) ** 2 / 1000).sum())
    assert chi_square < 43.8  # 99.9 % of chi-square with 19 degrees of freedom


def test_logit_normal_time_is_logit_normal():
    t = LogitNormalTime(0.5, 1.5).quantile(
        torch.linspace(0.001, 0.999, 999, dtype=torch.float64), RectifiedFlow()
    )
    expected = torch.distributions.Normal(0.5, 1.5).cdf(torch.logit(t))
    assert torch.allclose(expected, torch.linspace(0.001, 0.999, 999, dtype=torch.float64))
    drawn = LogitNormalTime()(RectifiedFlow(), Drawn(), 1000)
    assert drawn.min() >= RectifiedFlow().t_min and drawn.max() <= 1


def test_model_tells_the_network_the_level_and_scales_its_input():
    net, schedule = Says(), LinearBetas(300)
    model = GaussianDiffusion(
        net, schedule, Eps(), data_mean=-0.7, data_std=0.6, input_scaling=True
    )
    x, level = torch.randn(5, 2), schedule(torch.tensor([0.1, 0.3, 0.5, 0.7, 1.0]).double())
    ask(model, x, level, torch.arange(5))
    asked, c_noise, label = net.asked
    a, s = level.alpha[:, None], level.sigma[:, None]
    assert torch.allclose(asked.double(), (x + 0.7 * a) / (a**2 * 0.36 + s**2).sqrt(), atol=1e-6)
    assert c_noise.dtype == torch.float32 and c_noise.tolist() == [30, 90, 150, 210, 300]
    assert label.tolist() == [0, 1, 2, 3, 4]
    ask(model, x, schedule(0.5))
    assert net.asked[1].shape == (5,)


def test_matched_prior_has_the_moments_of_the_noised_data():
    schedule = LinearBetas(300)
    model = GaussianDiffusion(
        Says(), schedule, Eps(), data_mean=-0.739, data_std=0.616, matched_prior=True
    )
    level = schedule(1.0)
    start = model.prior(level, torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert float(start.mean()) == pytest.approx(-0.162, abs=0.01)
    assert float(start.std()) == pytest.approx(0.985, abs=0.01)
    standard = GaussianDiffusion(Says(), schedule, Eps())
    eps = torch.randn(10)
    assert torch.equal(standard.prior(level, eps), eps)


def test_combine_broadcasts_and_keeps_dtype():
    x = torch.randn(3, 2, 4, 4)
    c = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    out = combine((c, x), (0.5, x))
    assert out.dtype == torch.float32
    assert torch.allclose(out, (c.float() + 0.5).view(3, 1, 1, 1) * x)
    with pytest.raises(ValueError, match="term"):
        combine()


def test_levels_are_rows():
    batch = CosineBetas(10)(torch.tensor([1.0, 0.5, 0.0]).double())
    rows = levels(batch)
    assert len(rows) == 3 and isinstance(rows[0], Level)
    assert rows[1].alpha == batch.alpha[1] and rows[1].alpha.shape == ()


def test_keys_are_hashed_not_added():
    def draw(*keys):
        return torch.randn(4, generator=seeded_generator(*keys))

    assert torch.equal(draw("a", 0, 1), draw("a", 0, 1))
    streams = {tuple(draw("a", i, j).tolist()) for i in range(8) for j in range(8)}
    assert len(streams) == 64


def test_a_schedule_that_does_not_end_in_noise_is_named():
    text = terminal_mismatch(LinearBetas(300))
    assert "0.219" in text and "terminal SNR 0.05" in text and "-13 dB" in text
    for ends_in_noise in (LinearBetas(1000), CosineBetas(50), RectifiedFlow(), VarianceExploding()):
        assert terminal_mismatch(ends_in_noise) is None
    assert "0.0797" in terminal_mismatch(LinearBetas(500))


@pytest.mark.parametrize(
    ("made", "published"),
    [
        (LinearBetas, {"beta_start": 1e-4, "beta_end": 0.02}),
        (QuadraticBetas, {"beta_start": 1e-4, "beta_end": 0.02}),
        (CosineBetas, {"offset": 0.008, "max_beta": 0.999}),
        (SigmoidBetas, {"start": -3, "end": 3, "temperature": 1, "max_beta": 0.999}),
        (ContinuousVP, {"beta_min": 0.1, "beta_max": 20}),
        (VarianceExploding, {"sigma_min": 0.002, "sigma_max": 80}),
        (LogNormalSigma, {"mean": -1.2, "std": 1.2}),
        (ImportanceTime, {"history": 10, "uniform": 0.001}),
        (MinSNR, {"gamma": 5}),
        (SigmoidWeight, {"bias": 2}),
        (Denoising, {"estimate_share": 0.5}),
        (Regression, {"bound_weight": 0, "estimate_share": 0.5}),
        (VariationalBound, {"estimate_share": 0.5}),
        (Karras, {"rho": 7, "sigma_min": 0.002, "sigma_max": 80}),
        (DynamicThreshold, {"quantile": 0.995}),
        (Rescaled, {"share": 0.7}),
    ],
)
def test_defaults_are_the_published_constants(made, published):
    parameters = inspect.signature(made).parameters
    assert {name: parameters[name].default for name in published} == published
    needed = {"steps": 10, "time": UniformTime(), "weight": MinSNR(), "error": SquaredError()}
    needed["term"] = RegressionTerm(MinSNR(), SquaredError())
    made(**{name: needed[name] for name, p in parameters.items() if p.default is p.empty})

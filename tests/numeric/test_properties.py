"""Properties of the mathematics: each holds for every schedule, target, sampler and number drawn.

Closed forms, identities between two ways to one thing, invariances and bounds; 200 examples each.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from exact import Constant, GaussianData, MixtureData, answering, ask, loss_of, run
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.diffusion.bound import (
    bound_term,
    grey_log_probability,
    log_variance,
    normal_kl,
    prior_term,
)
from diffusion_lab.diffusion.couplings import OptimalTransport
from diffusion_lab.diffusion.gaussian import (
    Level,
    combine,
    eps_from,
    levels,
    marginal,
    posterior,
    transition,
)
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.objectives import Regression
from diffusion_lab.diffusion.parameterizations import EDM, X0, Eps, V, Velocity
from diffusion_lab.diffusion.schedules import (
    BetaTable,
    ContinuousCosine,
    ContinuousVP,
    CosineBetas,
    LinearBetas,
    QuadraticBetas,
    RectifiedFlow,
    SigmoidBetas,
    VarianceExploding,
    ZeroTerminalSNR,
)
from diffusion_lab.diffusion.times import (
    ImportanceTime,
    LogitNormalTime,
    LogNormalSigma,
    StratifiedTime,
    UniformTime,
)
from diffusion_lab.diffusion.weights import (
    P2,
    AbsoluteError,
    EDMWeight,
    HuberError,
    MinSNR,
    SigmoidWeight,
    SquaredError,
    TruncatedSNR,
)
from diffusion_lab.generate.labels import expand_labels
from diffusion_lab.random import permutation, seeded_generator
from diffusion_lab.sampling.adaptive import Adaptive
from diffusion_lab.sampling.ancestral import DDIM, DDPM, DDIMInversion
from diffusion_lab.sampling.constraints import Clip, DynamicThreshold, Inpaint
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree, Projected, Rescaled
from diffusion_lab.sampling.guidance.second_model import AutoGuidance, ClassifierGuidance
from diffusion_lab.sampling.guidance.strength import Interval, PowerCosine
from diffusion_lab.sampling.multistep import DPMSolver2S, DPMSolverMultistep, UniPC
from diffusion_lab.sampling.ode import (
    RK4,
    VE,
    AdamsBashforth,
    Heun,
    Midpoint,
    Straight,
    _integrals,
)
from diffusion_lab.sampling.sample_noise import SampleNoise, slerp
from diffusion_lab.sampling.sampler import Here, Step
from diffusion_lab.sampling.spacing import (
    Karras,
    Leading,
    Linspace,
    Listed,
    Quadratic,
    RePaint,
    Trailing,
    UniformLogSNR,
)

EXAMPLES = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# ---------------------------------------------------------------- what is drawn

SEEDS = st.integers(0, 10**6)
STEPS = st.one_of(st.none(), st.integers(1, 60))
TABLES = st.one_of(
    st.builds(LinearBetas, st.integers(1, 60), st.floats(1e-5, 1e-2), st.floats(1e-2, 0.5)),
    st.builds(QuadraticBetas, st.integers(1, 60), st.floats(1e-5, 1e-2), st.floats(1e-2, 0.5)),
    st.builds(CosineBetas, st.integers(1, 60), st.floats(0, 0.05)),
    st.builds(SigmoidBetas, st.integers(1, 60), st.floats(-4, 0), st.floats(0.5, 4)),
)
PRESERVING = st.one_of(
    TABLES,
    st.builds(ZeroTerminalSNR, st.integers(2, 60), st.sampled_from([LinearBetas, CosineBetas])),
    st.builds(ContinuousCosine, STEPS, st.floats(0.2, 5)),
    st.builds(ContinuousVP, STEPS, st.floats(0.05, 1), st.floats(1, 20)),
)
SCHEDULES = st.one_of(
    PRESERVING,
    st.builds(RectifiedFlow, STEPS, st.floats(0.2, 5)),
    st.builds(VarianceExploding, STEPS, st.floats(1e-3, 1e-2), st.floats(1, 100)),
)
TARGETS = st.one_of(
    st.sampled_from([Eps(), X0(), V(), Velocity()]), st.builds(EDM, st.floats(0.1, 3))
)
INNER = st.floats(0.02, 0.98)
"""Times away from both ends, so that nothing is degenerate."""
FRACTION = st.floats(0.05, 0.95)
WALKED = [
    LinearBetas(40, scaled=True),
    CosineBetas(30),
    SigmoidBetas(30),
    ZeroTerminalSNR(30, LinearBetas),
    ContinuousCosine(),
    ContinuousCosine(shift=0.5),
    ContinuousVP(),
    RectifiedFlow(),
    RectifiedFlow(17, shift=2.0),
    VarianceExploding(sigma_max=30.0),
]
"""Schedules that samplers walk down."""
MIXTURE = MixtureData(torch.tensor([[1.5, 0.2], [-1.0, 1.0], [-0.5, -1.4]]), 0.4)
GAUSSIAN = GaussianData([0.4, -0.3], [0.4, 1.5])


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def samplers(
    draw, schedule, steps=None, kinds=("ode", "multistep", "noisy"), frames=(Straight, VE)
):
    """A sampler that can run on the schedule."""
    steps = draw(st.integers(1, 5)) if steps is None else steps
    frame = draw(st.sampled_from(frames if schedule(1.0).alpha > 0 else frames[:1]))()
    makers = {
        "ode": [
            lambda: Heun(steps, frame=frame),
            lambda: Midpoint(steps, frame=frame),
            lambda: RK4(steps, frame=frame),
            lambda: DPMSolver2S(steps),
            lambda: DDIM(steps),
        ],
        "multistep": [
            lambda: AdamsBashforth(steps, frame=frame, order=draw(st.integers(1, 4))),
            lambda: DPMSolverMultistep(
                steps,
                order=draw(st.integers(1, 3)),
                rule=draw(st.sampled_from(["midpoint", "heun"])),
            ),
            lambda: UniPC(
                steps,
                order=draw(st.integers(1, 3)),
                variant=draw(st.sampled_from(["bh1", "bh2"])),
            ),
        ],
        "noisy": [
            lambda: DDPM(steps, None, draw(st.floats(0, 1)), draw(st.floats(0, 1))),
            lambda: DDIM(steps, eta=draw(st.floats(0.01, 1))),
            lambda: DPMSolverMultistep(
                steps, order=draw(st.integers(1, 3)), eta=draw(st.floats(0.1, 1.5))
            ),
            lambda: Heun(steps, frame=frame, churn=draw(st.floats(0.1, 5))),
        ],
    }
    return draw(st.sampled_from([make for kind in kinds for make in makers[kind]]))()


class Fixed:
    """Noise stated in advance, row by row, and counted: call n gives numbers of (seed, row, n)."""

    def __init__(self, seed, rows, turn=None):
        self.seed, self.rows, self.turn, self.calls = seed, rows, turn, 0

    def normal(self, like):
        self.calls += 1
        drawn = torch.stack([normal(self.seed + 31 * r + self.calls, 2) for r in self.rows])
        return drawn if self.turn is None else drawn @ self.turn


class Ones:
    """Noise that is 1."""

    def normal(self, like):
        return torch.ones_like(like)


class Given(NamedTuple):
    """Noise and probabilities written out."""

    eps: torch.Tensor
    u: torch.Tensor

    def normal(self, like):
        return self.eps

    def uniform(self, n):
        return self.u


class Net(torch.nn.Module):
    """Elementwise, in float64 and with classes, so that rows cannot meet."""

    num_classes = 4

    def __init__(self, seed=0):
        super().__init__()
        self.register_buffer("table", normal(seed, 5, 3))

    def forward(self, x, c_noise, label=None):
        label = torch.full((len(x),), 4) if label is None else label
        return torch.tanh(x + self.table[label] + torch.sin(c_noise.double())[:, None])


class Says(torch.nn.Module):
    """A network of one answer."""

    def forward(self, x, c_noise, label=None):
        return self.answer


def legal(target, schedule, low=1e-3):
    """Whether the target is far from degenerate on the whole schedule."""
    count = schedule.steps or 20
    level = schedule(torch.arange(1, count + 1, dtype=torch.float64) / count)
    return bool((target.determinant(level).abs() > low).all())


def rows_of(level):
    return [Level(*(part[i : i + 1] for part in level)) for i in range(len(level.t))]


# ---------------------------------------------------------------- gaussian and schedules


@EXAMPLES
@given(SCHEDULES, INNER, FRACTION, FRACTION)
def test_transitions_compose(schedule, t, share, other):
    """From a to b and on to c is from a to c: means multiply, variances accumulate."""
    a, b, c = schedule(t * share * other), schedule(t * share), schedule(t)
    r_ab, v_ab = transition(a, b)
    r_bc, v_bc = transition(b, c)
    r, v = transition(a, c)
    assert float(r) == pytest.approx(float(r_ab * r_bc), rel=1e-12)
    assert abs(float(v - (r_bc**2 * v_ab + v_bc))) < 1e-13 * float(c.sigma**2)


@EXAMPLES
@given(SCHEDULES, INNER, FRACTION)
def test_posterior_variance_is_the_product_of_two_normals(schedule, t, share):
    """Precisions add: that of the prior at s and that of x_t seen from s. So it is below both."""
    s, t = schedule(t * share), schedule(t)
    r, v = transition(s, t)
    variance = posterior(s, t)[2]
    assume(float(v) > 1e-8 * float(t.sigma**2))
    assert float(1 / variance) == pytest.approx(float(1 / s.sigma**2 + r**2 / v), rel=1e-9)
    assert variance <= v * (1 + 1e-12) and variance <= s.sigma**2


@EXAMPLES
@given(SCHEDULES, INNER, FRACTION)
def test_posterior_keeps_the_marginals(schedule, t, share):
    """Mean and variance of x_s are those of its marginal, once x_t is drawn from its own."""
    s, t = schedule(t * share), schedule(t)
    c_t, c_0, variance = posterior(s, t)
    assert c_t >= 0 and c_0 >= 0
    assert float(c_t * t.alpha + c_0) == pytest.approx(float(s.alpha), rel=1e-12)
    assert float(c_t**2 * t.sigma**2 + variance) == pytest.approx(float(s.sigma**2), rel=1e-10)


@EXAMPLES
@given(SCHEDULES, st.lists(INNER, min_size=1, max_size=5), SEEDS)
def test_a_batch_of_levels_is_its_rows(schedule, times, seed):
    """A level of shape (B,) does to each row what its own level of shape () does, bit for bit."""
    x0, eps = normal(seed, 2, len(times), 3)
    level = schedule(torch.tensor(times, dtype=torch.float64))
    x_t = marginal(x0, eps, level)
    back = eps_from(x_t, x0, level)
    for i, t in enumerate(times):
        one = schedule(t)
        assert torch.equal(x_t[i], marginal(x0[i], eps[i], one))
        assert torch.equal(back[i], eps_from(x_t[i], x0[i], one))


@EXAMPLES
@given(st.integers(2, 40), st.integers(1, 40), SEEDS)
def test_the_first_betas_make_the_first_levels(total, first, seed):
    """A table cut short has the same levels, at times stretched by T / T'."""
    first = min(first, total)
    betas = torch.sigmoid(normal(seed, total) - 2)
    whole, cut = BetaTable(betas), BetaTable(betas[:first])
    k = torch.arange(first + 1, dtype=torch.float64)
    long, short = whole(k / total), cut(k / first)
    assert (long.alpha - short.alpha).abs().max() < 1e-14
    assert (long.sigma - short.sigma).abs().max() < 1e-14
    assert torch.allclose(long.alpha[1:] ** 2, (1 - betas[:first]).cumprod(0), rtol=1e-12)


@EXAMPLES
@given(st.integers(2, 30), st.integers(2, 8), st.floats(0, 0.05), st.floats(-4, -1))
def test_tables_of_a_formula_agree_at_shared_times(steps, times, offset, start):
    """Where no beta is clipped, alpha at k/T is the formula's, whatever T is."""
    t = torch.arange(1, steps, dtype=torch.float64) / steps
    for base in (lambda n: CosineBetas(n, offset), lambda n: SigmoidBetas(n, start)):
        coarse, fine = base(steps)(t), base(steps * times)(t)
        assert (coarse.alpha - fine.alpha).abs().max() < 1e-12


@EXAMPLES
@given(st.integers(2, 80), st.floats(1e-5, 1e-2), st.floats(1e-2, 0.3))
def test_quadratic_betas_keep_more_signal(steps, low, high):
    linear, quadratic = LinearBetas(steps, low, high), QuadraticBetas(steps, low, high)
    assert (quadratic.alpha_bar - linear.alpha_bar > -1e-15).all()
    assert quadratic.alpha_bar[0].item() == pytest.approx(1 - low, rel=1e-12)


@EXAMPLES
@given(TABLES)
def test_zero_terminal_changes_nothing_twice(schedule):
    assume(schedule.steps > 1)
    once = ZeroTerminalSNR(schedule.steps, lambda steps: schedule)
    twice = ZeroTerminalSNR(schedule.steps, lambda steps: once)
    assert (once.alpha_bar - twice.alpha_bar).abs().max() < 1e-14
    assert (once.alpha_bar <= schedule.alpha_bar + 1e-15).all()


@EXAMPLES
@given(st.floats(0.2, 5), st.floats(0.2, 5), INNER)
def test_shifts_of_a_flow_compose(one, two, t):
    """Shift a of shift b is shift a b; shift 1 / a undoes shift a."""
    inner = float(RectifiedFlow(shift=two)(t).sigma)
    both = RectifiedFlow(shift=one * two)(t).sigma
    assert float(RectifiedFlow(shift=one)(inner).sigma) == pytest.approx(float(both), abs=1e-12)
    assert float(RectifiedFlow(shift=1 / two)(inner).sigma) == pytest.approx(t, abs=1e-12)


# ---------------------------------------------------------------- targets, model and weights


@EXAMPLES
@given(SCHEDULES, INNER, TARGETS, TARGETS, SEEDS)
def test_every_pair_of_targets_round_trips(schedule, t, one, two, seed):
    """An answer F said in another target, and back, is F; both say the same image."""
    assume(legal(one, schedule) and legal(two, schedule))
    level, x_t, said = schedule(t), normal(seed, 2, 3), normal(seed + 1, 2, 3)
    assume(min(abs(float(p.determinant(level))) for p in (one, two)) > 1e-2)

    def heard(target, answer):
        net = Says()
        net.answer = answer
        model = GaussianDiffusion(net, schedule, target)
        x0 = ask(model, x_t, level).x0
        return model, x0, eps_from(x_t, x0, level)

    first, x0, eps = heard(one, said)
    size = 1 + float(x0.abs().max() + eps.abs().max())
    second, again, eps_again = heard(two, combine(*zip(two.weights(level), (x0, eps), strict=True)))
    assert (again - x0).abs().max() < 1e-10 * size
    assert (first.target(again, eps_again, level) - said).abs().max() < 1e-8 * size
    assert (second.target(x0, eps, level) - second.denoiser.answer).abs().max() < 1e-12 * size


@EXAMPLES
@given(SCHEDULES, INNER, TARGETS, st.floats(-2, 2), SEEDS)
def test_errors_of_target_and_image_differ_by_the_determinant(schedule, t, target, mean, seed):
    """|F - F'| = |D| / sigma |x0 - x0'|, which is how weights are carried over."""
    assume(legal(target, schedule))
    level, x_t = schedule(t), normal(seed, 2, 3)
    model = GaussianDiffusion(Says(), schedule, target, data_mean=mean)
    answers = []
    for k in (1, 2):
        model.denoiser.answer = normal(seed + k, 2, 3)
        answers.append(ask(model, x_t, level))
    factor = float(target.determinant(level).abs() / level.sigma)
    raw, x0 = ((answers[0][i] - answers[1][i]).abs() for i in (1, 0))
    assert torch.allclose(raw, factor * x0, rtol=1e-9, atol=1e-9 * factor)


@EXAMPLES
@given(SCHEDULES, TARGETS, st.lists(INNER, min_size=1, max_size=4), st.booleans(), SEEDS)
def test_the_model_treats_each_row_alone(schedule, target, times, scaling, seed):
    assume(legal(target, schedule))
    model = GaussianDiffusion(Net(), schedule, target, 0.3, 0.6, input_scaling=scaling)
    level = schedule(torch.tensor(times, dtype=torch.float64))
    x, label = normal(seed, len(times), 3), torch.arange(len(times)) % 5
    whole = ask(model, x, level, label).x0
    for i, one in enumerate(rows_of(level)):
        alone = ask(model, x[i : i + 1], one, label[i : i + 1]).x0
        assert torch.allclose(alone[0], whole[i], rtol=1e-12, atol=1e-12)


@EXAMPLES
@given(SCHEDULES, TARGETS, INNER, st.floats(-2, 2).filter(bool), st.booleans(), SEEDS)
def test_data_mean_moves_the_model_with_the_data(schedule, target, t, mean, scaling, seed):
    """The model of data moved by m at x_t + alpha m is the model at x_t, moved by m."""
    assume(legal(target, schedule))
    level, x = schedule(t), normal(seed, 2, 3)
    plain = GaussianDiffusion(Net(), schedule, target, 0.0, 0.7, scaling)
    moved = GaussianDiffusion(Net(), schedule, target, mean, 0.7, scaling)
    one, two = ask(plain, x, level), ask(moved, x + float(level.alpha) * mean, level)
    gain = 1 + float(1 / target.determinant(level).abs())
    assert (two.x0 - one.x0 - mean).abs().max() < 1e-11 * gain
    target_of = moved.target(x + mean, x, level) - plain.target(x, x, level)
    assert target_of.abs().max() < 1e-12 * gain


@EXAMPLES
@given(st.floats(0.1, 3), st.floats(0.1, 10), INNER, SEEDS)
def test_the_edm_target_knows_no_units(std, scale, t, seed):
    """Data, sigma and data_std times k: the same F, and a weight on x0 that is 1 / k^2 of it."""
    one, two = VarianceExploding(sigma_max=10.0)(t), VarianceExploding(sigma_max=10.0 * scale)(t)
    x0, eps = normal(seed, 2, 3)
    ours = combine(*zip(EDM(std).weights(one), (x0, eps), strict=True))
    theirs = combine(*zip(EDM(std * scale).weights(two), (scale * x0, eps), strict=True))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    weights = EDMWeight(std).on_x0(one), EDMWeight(std * scale).on_x0(two) * scale**2
    assert float(weights[0]) == pytest.approx(float(weights[1]), rel=1e-10)


WEIGHTS = st.one_of(
    st.just(TruncatedSNR()),
    st.builds(MinSNR, st.floats(0.1, 20)),
    st.builds(P2, st.floats(0, 2), st.floats(0.1, 5)),
    st.builds(SigmoidWeight, st.floats(-3, 5)),
    st.builds(EDMWeight, st.floats(0.1, 3)),
)


@EXAMPLES
@given(SCHEDULES, st.lists(INNER, min_size=1, max_size=4), TARGETS, WEIGHTS)
def test_a_weight_on_the_target_is_its_weight_on_the_image(schedule, times, target, weight):
    """W on x0 times (sigma / D)^2; on eps 1 / SNR of it, on v 1 / (SNR + 1) where preserving."""
    level = schedule(torch.tensor(times, dtype=torch.float64))
    d = target.determinant(level)
    assume(bool((d.abs() > 1e-6).all()))
    w, snr = weight.on_x0(level), (level.alpha / level.sigma) ** 2
    assert (w >= 0).all() and torch.isfinite(w).all()
    assert torch.allclose(weight.on_target(level, target) * d**2, w * level.sigma**2, rtol=1e-10)
    assert torch.allclose(weight.on_target(level, Eps()) * snr, w, rtol=1e-10)
    assert torch.allclose(weight.on_target(level, X0()), w, rtol=1e-10)
    if (level.alpha**2 + level.sigma**2 - 1).abs().max() < 1e-12:
        assert torch.allclose(weight.on_target(level, V()) * (snr + 1), w, rtol=1e-10)


@EXAMPLES
@given(SCHEDULES, WEIGHTS, st.floats(0.1, 20), INNER, FRACTION)
def test_weights_keep_their_order(schedule, weight, gamma, t, share):
    """A cleaner level never has less weight on x0 (gamma of P2 at most 1), nor more on eps.

    And min(SNR, g) + max(SNR, g) = SNR + g joins the two weights that cut.
    """
    noisy, clean = schedule(t), schedule(t * share)
    if not (isinstance(weight, P2) and weight.gamma > 1):
        assert weight.on_x0(clean) >= weight.on_x0(noisy) * (1 - 1e-12)
    on_eps = [weight.on_target(level, Eps()) for level in (clean, noisy)]
    assert on_eps[0] <= on_eps[1] * (1 + 1e-12)
    snr = (noisy.alpha / noisy.sigma) ** 2
    both = MinSNR(1.0).on_x0(noisy) + TruncatedSNR().on_x0(noisy)
    assert float(both) == pytest.approx(float(snr + 1), rel=1e-12)
    assert MinSNR(gamma).on_x0(noisy) <= min(gamma, float(snr)) * (1 + 1e-12)


@EXAMPLES
@given(st.floats(0.05, 4), st.floats(0.1, 10), SEEDS)
def test_huber_lies_between_square_and_line(delta, scale, seed):
    """Square within delta, its tangent beyond; even, and at most the square and 2 delta |e|."""
    e = 3 * normal(seed, 16)
    target = normal(seed + 1, 16)
    huber = HuberError(delta)(target + e, target)
    square, line = SquaredError()(target + e, target), AbsoluteError()(target + e, target)
    inside = line <= delta
    assert torch.allclose(huber[inside], square[inside], rtol=1e-9, atol=1e-12)
    tangent = 2 * delta * line - delta**2
    assert torch.allclose(huber[~inside], tangent[~inside], rtol=1e-9, atol=1e-12)
    assert (huber <= square + 1e-12).all() and (huber <= 2 * delta * line + 1e-12).all()
    assert torch.allclose(HuberError(delta)(target, target + e), huber)
    scaled = HuberError(delta * scale)(scale * (target + e), scale * target)
    assert torch.allclose(scaled, scale**2 * huber, rtol=1e-9, atol=1e-10)


@EXAMPLES
@given(SCHEDULES, TARGETS, WEIGHTS, st.floats(-4, 4), st.integers(1, 4), SEEDS)
def test_a_loss_is_quadratic_around_its_target_and_of_each_row_alone(
    schedule, target, weight, factor, rows, seed
):
    """Zero at F*, k^2 times as large k times as far off, and no row's loss knows the others."""
    assume(legal(target, schedule))
    x0, eps, off = normal(seed, 3, rows, 4)
    u = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    objective = Regression(UniformTime(), weight, SquaredError())
    model = GaussianDiffusion(Says(), schedule, target, data_mean=0.2).eval()
    level = schedule(UniformTime().times(schedule, u))
    assume(bool((level.alpha > 1e-4).all()))
    aim = model.target(x0, eps, level)

    def loss(answer, rows=slice(None)):
        model.denoiser.answer = answer[rows]
        return loss_of(objective, model, x0[rows], Given(eps[rows], u[rows]))

    assert not loss(aim).any()
    one, many = loss(aim + off), loss(aim + factor * off)
    assert torch.allclose(many, factor**2 * one, rtol=1e-6, atol=1e-9 * float(one.max()))
    alone = torch.cat([loss(aim + off, slice(i, i + 1)) for i in range(rows)])
    assert torch.allclose(alone, one, rtol=1e-10)


# ---------------------------------------------------------------- times


LAWS = st.one_of(
    st.just(UniformTime()),
    st.builds(LogitNormalTime, st.floats(-2, 2), st.floats(0.2, 3)),
    st.builds(LogNormalSigma, st.floats(-3, 1), st.floats(0.2, 3)),
    st.builds(lambda seed, bins: learned(seed, bins, 2), SEEDS, st.integers(1, 6)),
)


def learned(seed, bins, history, uniform=0.1):
    """A law that has seen losses in every interval, drawn from the seed."""
    law = ImportanceTime(bins, history, uniform)
    t = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    t = 1e-3 + (1 - 1e-3) * t.repeat(history)
    law.observe(RectifiedFlow(), t, normal(seed, bins * history).exp())
    return law


@EXAMPLES
@given(SCHEDULES, LAWS, SEEDS)
def test_laws_give_trained_times_that_rise_with_the_probability(schedule, law, seed):
    u = torch.rand(24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    u = torch.cat((torch.zeros(1).double(), u.sort().values))
    t = law.times(schedule, u)
    assert t.dtype == torch.float64 and t.shape == u.shape
    assert (t >= schedule.t_min * (1 - 1e-12)).all() and (t <= schedule.t_max).all()
    assert (t.diff() >= -1e-12).all()
    assert torch.allclose(schedule.snap(t), t, atol=1e-12)


@EXAMPLES
@given(st.integers(1, 60), st.integers(1, 6), SEEDS)
def test_stratified_times_visit_every_step_equally(steps, times, seed):
    """A batch of m T visits each of T steps m times; one of T / m the steps of each part once."""
    schedule, law = LinearBetas(steps), StratifiedTime(UniformTime())
    u = torch.rand(steps * times, generator=torch.Generator().manual_seed(seed)).double()
    nodes = (law(schedule, Given(u, u), steps * times) * steps).round().long()
    assert torch.equal(torch.bincount(nodes, minlength=steps + 1)[1:], torch.full((steps,), times))
    long = LinearBetas(steps * times)
    nodes = (law(long, Given(u, u[:steps]), steps) * steps * times).round().long()
    assert torch.equal((nodes - 1) // times, torch.arange(steps))


@EXAMPLES
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 5), st.floats(0.05, 1), SEEDS)
def test_importance_makes_up_for_its_own_law(bins, history, size, uniform, seed):
    """Intervals are visited as often as p says and weigh 1 / (bins p): the mean weight is 1."""
    law = learned(seed, bins, history, uniform)
    schedule = RectifiedFlow(bins * size or None)
    n = 1000
    t = law.times(schedule, (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    if size:
        interval = ((t * bins * size).round().long() - 1) // size
    else:
        interval = ((t - schedule.t_min) / (1 - schedule.t_min) * bins).long()
    visits = torch.bincount(interval, minlength=bins)
    p = law.probabilities
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-12) and (p >= uniform / bins * 0.999).all()
    assert (visits - n * p).abs().max() < 1.01
    weight = law.importance(schedule, t)
    assert torch.allclose(weight, 1 / (bins * p[interval]), rtol=1e-12)
    assert abs(float(weight.mean()) - 1) < 1.01 * float((1 / (bins * p)).sum()) / n


@EXAMPLES
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 50), SEEDS)
def test_importance_is_the_root_mean_square_of_the_last_losses(bins, history, count, seed):
    """As remembered in plain lists; uniform until each has enough."""
    law, seen = ImportanceTime(bins, history, 0.01), [[] for _ in range(bins)]
    schedule = LinearBetas(bins * 3)
    node = torch.randint(1, bins * 3 + 1, (count,), generator=torch.Generator().manual_seed(seed))
    loss = normal(seed, count)
    law.observe(schedule, node.double() / (bins * 3), loss)
    for k, value in zip(node.tolist(), loss.tolist(), strict=True):
        seen[(k - 1) // 3].append(value)
    expected = [1.0 / bins] * bins
    if all(len(losses) >= history for losses in seen):
        rms = [math.sqrt(sum(v * v for v in losses[-history:]) / history) for losses in seen]
        expected = [0.99 * r / sum(rms) + 0.01 / bins for r in rms]
    assert law.probabilities.tolist() == pytest.approx(expected, rel=1e-10)


# ---------------------------------------------------------------- couplings and the bound


@EXAMPLES
@given(st.integers(1, 7), st.floats(-5, 5), st.floats(0.1, 10), SEEDS)
def test_optimal_transport_is_cheapest_and_knows_no_order(rows, shift, scale, seed):
    """No dearer than any order tried; the same pairs for eps in any order, x0 moved or scaled."""
    x0, eps = normal(seed, 2, rows, 2)
    paired = OptimalTransport()(x0, eps)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))

    def cost(noise):
        return float(((x0 - noise) ** 2).sum())

    assert cost(paired) <= min(cost(eps), cost(eps[order])) + 1e-12
    assert torch.equal(paired.sort(0).values, eps.sort(0).values)
    assert torch.equal(OptimalTransport()(x0, eps[order]), paired)
    assert torch.equal(OptimalTransport()(scale * x0 + shift, eps), paired)
    assert torch.equal(OptimalTransport()(x0[order], eps), paired[order])


NUMBER = st.floats(-4, 4)


@EXAMPLES
@given(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, st.floats(0.2, 5))
def test_kl_is_positive_and_knows_no_units(mean, log_var, mean_p, log_var_p, shift, scale):
    """0 at equality alone, and the same after an affine change of the number."""

    def kl(*numbers):
        return float(normal_kl(*(torch.tensor(n, dtype=torch.float64) for n in numbers)))

    value = kl(mean, log_var, mean_p, log_var_p)
    assert kl(mean, log_var, mean, log_var) == 0
    assert value >= -1e-14
    if abs(mean - mean_p) > 1e-3 or abs(log_var - log_var_p) > 1e-3:
        assert value > 1e-9
    moved = (scale * mean + shift, log_var + 2 * math.log(scale))
    moved += (scale * mean_p + shift, log_var_p + 2 * math.log(scale))
    assert kl(*moved) == pytest.approx(value, rel=1e-9, abs=1e-12)


GREYS = torch.arange(256, dtype=torch.float64) * 2 / 255 - 1


@EXAMPLES
@given(st.floats(-1.5, 1.5), st.floats(-9, 3))
def test_grey_values_are_a_distribution(mean, log_var):
    """Probabilities that add up to 1, are mirrored with the mean, and peak at it."""
    means, log_vars = torch.full_like(GREYS, mean), torch.full_like(GREYS, log_var)
    p = grey_log_probability(GREYS, means, log_vars).exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-9)
    mirrored = grey_log_probability(-GREYS, -means, log_vars).exp()
    assert torch.allclose(mirrored, p, rtol=1e-9, atol=1e-12)
    inner = p[1:-1]
    nearest = int((GREYS[1:-1] - mean).abs().argmin())
    assert float(inner[nearest]) >= float(inner.max()) * (1 - 1e-9)


@EXAMPLES
@given(TABLES, st.floats(-1, 1), st.floats(-1, 1), SEEDS)
def test_terms_of_the_bound_telescope(schedule, x0, off, seed):
    """With the small variance a term is (SNR_s - SNR_t) error^2 / 2; together the ends' alone."""
    total = schedule.steps
    assume(total > 2)
    level = schedule(torch.arange(1, total + 1, dtype=torch.float64) / total)
    s, t = (Level(*(part[cut] for part in level)) for cut in (slice(None, -1), slice(1, None)))
    image = torch.full((total - 1, 2), x0, dtype=torch.float64)
    x_t = marginal(image, normal(seed, total - 1, 2), t)
    terms = bound_term(image, x_t, s, t, Denoised(image + off), fraction=0.0)
    snr = (level.alpha / level.sigma) ** 2
    expected = 0.5 * (snr[:-1] - snr[1:]) * off**2
    assert torch.allclose(terms, expected, rtol=1e-6, atol=1e-12 * float(snr[0]))
    whole = 0.5 * float(snr[0] - snr[-1]) * off**2
    assert float(terms.sum()) == pytest.approx(whole, rel=1e-6, abs=1e-10)


@EXAMPLES
@given(PRESERVING, st.floats(-2, 2), INNER, FRACTION)
def test_the_prior_term_falls_with_the_noise(schedule, x0, t, share):
    """Noising cannot make x0 easier to tell from pure noise; the term is never negative."""
    image = torch.full((1, 2), x0, dtype=torch.float64)
    clean, noisy = (float(prior_term(image, schedule(time))) for time in (t * share, t))
    assert clean >= noisy - 1e-12 and noisy > -1e-14


@EXAMPLES
@given(SCHEDULES, INNER, FRACTION, st.floats(0, 1), st.booleans(), SEEDS)
def test_ddpm_adds_the_variance_that_the_bound_supposes(
    schedule, t, share, fraction, learned, seed
):
    """The step's added noise squared is `bound.log_variance`, fixed or learned."""
    t, s = schedule(t), schedule(t * share)
    x = normal(seed, 2, 3)
    told = torch.full_like(x, fraction) if learned else None
    sampler = DDPM(variance_fraction=None if learned else fraction)

    def step(sampler):
        return sampler.step(
            lambda query: Denoised(query.x, None, told), Here(x, t, [], schedule, Ones()), s
        ).x

    added = step(sampler) - step(DDPM(noise_scale=0.0))
    expected = float(torch.as_tensor(log_variance(s, t, fraction, x)).exp())
    assert torch.allclose(added**2, torch.full_like(x, expected), rtol=1e-6, atol=1e-14)


# ---------------------------------------------------------------- grids

GRIDS = [Trailing(), Leading(), Linspace(), UniformLogSNR(), Quadratic(), Karras()]


@EXAMPLES
@given(SCHEDULES, st.sampled_from(GRIDS), st.floats(0.05, 1), FRACTION, st.booleans())
def test_grids_fall_inside_their_range(schedule, grid, start, share, whole):
    """S times from the start (Leading: below it), strictly falling, then 0; nodes if discrete."""
    start = None if whole else float(schedule.snap(torch.tensor(start, dtype=torch.float64)))
    top = 1.0 if start is None else start
    most = 30 if schedule.steps is None else round(top * schedule.steps)
    steps = max(1, round(share * most))
    times = grid(schedule, steps, start)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert times[-1] == 0 and (times.diff() < 0).all()
    if isinstance(grid, Leading):
        assert times[0] <= top + 1e-12
    else:
        assert float(times[0]) == pytest.approx(top, rel=1e-9)
    if schedule.steps:
        nodes = times * schedule.steps
        assert (nodes - nodes.round()).abs().max() < 1e-9
        assert nodes[-2].round() >= 1


@EXAMPLES
@given(SCHEDULES, st.sampled_from(GRIDS), st.data())
def test_all_steps_are_every_node_once(schedule, grid, data):
    """S = T' leaves no choice, whatever the grid; None asks for it."""
    assume(schedule.steps is not None)
    first = data.draw(st.integers(1, schedule.steps))
    expected = torch.arange(first, -1, -1, dtype=torch.float64)
    for steps in (None, first):
        times = grid(schedule, steps, first / schedule.steps)
        assert torch.equal((times * schedule.steps).round(), expected)


@EXAMPLES
@given(st.integers(1, 60), st.sampled_from(GRIDS[:3]), st.data())
def test_a_grid_from_a_node_is_that_of_the_shorter_schedule(total, grid, data):
    first = data.draw(st.integers(1, total))
    steps = data.draw(st.integers(1, first))
    ours = grid(RectifiedFlow(total), steps, first / total) * total
    assert torch.equal(ours.round(), (grid(RectifiedFlow(first), steps) * first).round())


@EXAMPLES
@given(SCHEDULES, st.sampled_from(GRIDS), FRACTION)
def test_a_grid_written_out_is_itself(schedule, grid, share):
    """`Listed` of the times of any grid visits the same."""
    steps = max(1, round(share * (schedule.steps or 30)))
    times = grid(schedule, steps)
    assume(float(times[-2]) >= schedule.t_min)
    listed = Listed(times[:-1].tolist())
    assert torch.allclose(listed(schedule, None), times, atol=1e-12)
    assert torch.allclose(listed(schedule, steps), times, atol=1e-12)
    below = listed(schedule, None, start=float(times[0]))
    assert torch.allclose(below, times, atol=1e-12)


@EXAMPLES
@given(st.sampled_from(GRIDS), st.integers(1, 14), st.integers(1, 6), st.integers(1, 3))
def test_repaint_rises_to_levels_it_has_left(grid, steps, jump, repeats):
    """Only the base's levels; one level down at a time, each stretch `repeats` times; rises to its
    top, from its bottom."""
    schedule = LinearBetas(14)
    levels = grid(schedule, steps)
    order = {round(float(t) * 14): i for i, t in enumerate(levels)}
    walk = [order[round(float(t) * 14)] for t in RePaint(grid, jump, repeats)(schedule, steps)]
    down = [(a, b) for a, b in itertools.pairwise(walk) if b > a]
    rises = [(a, b) for a, b in itertools.pairwise(walk) if b < a]
    assert all(b == a + 1 for a, b in down) and walk[0] == 0 and walk[-1] == steps
    assert all(down.count((i, i + 1)) == repeats for i in range(steps - 1))
    stretches = [(i, min(i + jump, steps - 1)) for i in range(0, steps - 1, jump)]
    assert rises == [(last, first) for first, last in stretches for _ in range(repeats - 1)]


# ---------------------------------------------------------------- samplers


@EXAMPLES
@given(st.sampled_from(WALKED), st.data(), SEEDS)
def test_one_step_is_the_estimate_itself(schedule, data, seed):
    """S = 1: x0-hat of the start, one call, no noise; and a longer walk ends in x0-hat too."""
    sampler, x = data.draw(samplers(schedule, steps=1)), normal(seed, 3, 2)
    noise = Fixed(seed, range(3))
    out = run(sampler, MIXTURE, schedule, x, noise).x
    assert torch.equal(out, ask(MIXTURE, x, schedule(1.0)).x0) and noise.calls == 0
    sampler.steps = 3
    *_, before, last = sampler.trajectory(
        MIXTURE, schedule, levels(schedule(sampler.times(schedule))), x, Fixed(seed, range(3))
    )
    assert torch.equal(last.x, last.x0) and last.s.sigma == 0
    assert torch.equal(last.x, ask(MIXTURE, last.x_t, last.t).x0)
    if not getattr(sampler, "churn", 0):  # which raises the noise before the step
        assert torch.equal(last.x_t, before.x) and last.t.t == before.s.t


@EXAMPLES
@given(st.sampled_from(WALKED), st.data(), SEEDS)
def test_noise_is_drawn_once_a_step_and_never_in_the_last(schedule, data, seed):
    kinds = data.draw(st.sampled_from([("ode", "multistep"), ("noisy",)]))
    sampler, noise = data.draw(samplers(schedule, kinds=kinds)), Fixed(seed, range(2))
    assume(not isinstance(sampler, Heun) or not sampler.churn)
    run(sampler, MIXTURE, schedule, normal(seed, 2, 2), noise)
    assert noise.calls == (sampler.steps - 1 if kinds == ("noisy",) else 0)


@EXAMPLES
@given(st.sampled_from(WALKED), st.sampled_from(GRIDS), st.booleans(), st.data(), SEEDS)
def test_a_constant_estimate_is_returned_on_every_grid(schedule, grid, repaint, data, seed):
    sampler = data.draw(samplers(schedule))
    sampler.grid = RePaint(grid, jump=2, repeats=2) if repaint else grid
    x0 = normal(seed, 2)
    out = run(sampler, Constant(x0), schedule, 5 * normal(seed + 1, 3, 2), Fixed(seed, range(3)))
    assert torch.equal(out.x, x0.expand(3, 2))


@EXAMPLES
@given(st.sampled_from(WALKED), st.sampled_from(GRIDS), st.data(), SEEDS)
def test_solvers_follow_the_path_of_a_known_image(schedule, grid, data, seed):
    """Told the true x0, every deterministic sampler visits alpha x0 + sigma eps at each level."""
    sampler = data.draw(samplers(schedule, kinds=("ode", "multistep")))
    sampler.grid = grid
    x0, eps = normal(seed, 2), normal(seed + 1, 3, 2)
    times = sampler.times(schedule)
    start = marginal(x0.expand(3, 2), eps, schedule(times[0]))
    for step in sampler.trajectory(Constant(x0), schedule, levels(schedule(times)), start, None):
        expected = marginal(x0.expand(3, 2), eps, step.s)
        assert (step.x - expected).abs().max() < 1e-10 * (1 + float(step.t.sigma))


@EXAMPLES
@given(SCHEDULES, INNER, FRACTION, st.floats(0, 1), st.integers(0, 2), SEEDS)
def test_kept_and_fresh_noise_make_up_the_level(schedule, t, share, eta, which, seed):
    """Squares of what is kept of eps and of what is added are sigma_s^2 together."""
    sampler = [DDIM(eta=eta), DPMSolverMultistep(order=1, eta=2 * eta), DDPM()][which]
    t, s = schedule(t), schedule(t * share)
    zero = torch.zeros(1, 1, dtype=torch.float64)

    def step(x, noise):
        return float(sampler.step(Constant(zero), Here(x, t, [], schedule, noise), s).x)

    class Silent:
        def normal(self, like):
            return torch.zeros_like(like)

    kept, fresh = step(zero + t.sigma, Silent()), step(zero, Ones())
    assert kept**2 + fresh**2 == pytest.approx(float(s.sigma**2), rel=1e-7)
    if which == 0:
        expected = eta**2 * float(posterior(s, t)[2])
        assert fresh**2 == pytest.approx(expected, rel=1e-9, abs=1e-15)


@EXAMPLES
@given(st.sampled_from(WALKED), st.integers(0, 4), st.integers(1, 3), st.data(), SEEDS)
def test_a_sample_knows_nothing_of_the_others(schedule, kind, rows, data, seed):
    """Alone or in a batch, in whatever order: the same image, for every sampler."""
    sampler = data.draw(samplers(schedule)) if kind else Adaptive(2, rtol=0.1, atol=0.1)
    x = normal(seed, rows, 2) * schedule.prior_std(schedule(1.0))
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
    whole = run(sampler, MIXTURE, schedule, x[order], Fixed(seed, order)).x
    k = data.draw(st.integers(0, rows - 1))
    alone = run(sampler, MIXTURE, schedule, x[k : k + 1], Fixed(seed, [k])).x
    assert (whole[order.index(k)] - alone[0]).abs().max() < 1e-12


@EXAMPLES
@given(st.sampled_from(WALKED), st.floats(0, 2 * math.pi), NUMBER, NUMBER, st.data(), SEEDS)
def test_samplers_move_with_the_data(schedule, angle, right, up, data, seed):
    """Data turned and moved, start and noise with them: the same samples, turned and moved."""
    sampler = data.draw(samplers(schedule))
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    away = torch.tensor([right, up], dtype=torch.float64)
    moved = MixtureData(MIXTURE.means @ turn + away, MIXTURE.std)
    x = normal(seed, 2, 2) * schedule.prior_std(schedule(1.0))
    first = schedule(sampler.times(schedule)[0])
    one = run(sampler, MIXTURE, schedule, x, Fixed(seed, range(2))).x
    start = x @ turn + first.alpha * away
    two = run(sampler, moved, schedule, start, Fixed(seed, range(2), turn)).x
    assert (one @ turn + away - two).abs().max() < 1e-9


@EXAMPLES
@given(st.floats(0.1, 10), st.sampled_from(GRIDS[:3]), st.data(), SEEDS)
def test_samplers_scale_with_the_data(scale, grid, data, seed):
    """Data and sigma times k: samples times k. (The straight frame adds sigma to 1: not there.)"""
    small, large = VarianceExploding(sigma_max=20.0), VarianceExploding(None, 1e-3, 20.0 * scale)
    sampler = data.draw(samplers(small, frames=[VE]))
    sampler.grid = grid
    times = sampler.times(small)
    scaled = MixtureData(MIXTURE.means * scale, MIXTURE.std * scale)
    x = 20 * normal(seed, 2, 2)
    one = run(sampler, MIXTURE, small, x, Fixed(seed, range(2)), times).x
    two = run(sampler, scaled, large, scale * x, Fixed(seed, range(2)), times).x
    assert (two / scale - one).abs().max() < 1e-9


MAPPED = [
    LinearBetas(1000),
    CosineBetas(1000),
    ContinuousCosine(),
    ContinuousVP(),
    RectifiedFlow(),
    RectifiedFlow(shift=2.0),
    VarianceExploding(),
]


@EXAMPLES
@given(
    st.lists(st.sampled_from(MAPPED), min_size=2, max_size=2, unique_by=id),
    st.lists(st.floats(0.4, 2.5), min_size=1, max_size=4),
    st.data(),
    SEEDS,
)
def test_samplers_depend_on_the_log_snr_alone(schedules, gaps, data, seed):
    """The same log-SNRs on two schedules give the same samples, x / alpha being the same.

    But for DDPM's large variance, which is that of x_t and put to x_s.
    """
    log_snr = torch.tensor([-7.0, *gaps], dtype=torch.float64).cumsum(0)
    sampler = data.draw(samplers(MAPPED[0], steps=len(gaps)))
    if isinstance(sampler, DDPM):
        sampler.variance_fraction = 0.0
    z, ends = normal(seed, 2, 2), []
    z = MIXTURE.means[:2] + math.exp(3.5) * z
    for schedule in schedules:
        times = torch.cat((schedule.time_of(log_snr), torch.zeros(1, dtype=torch.float64)))
        x = z * schedule(times[0]).alpha
        steps = list(
            sampler.trajectory(MIXTURE, schedule, levels(schedule(times)), x, Fixed(seed, range(2)))
        )
        ends.append((steps[-2].x / steps[-2].s.alpha, steps[-1].x))
    for one, two in zip(*ends, strict=True):
        assert (one - two).abs().max() < 1e-6 * (1 + float(one.abs().max()))


@EXAMPLES
@given(st.sampled_from(WALKED), st.floats(-1, 2), st.data(), SEEDS)
def test_samplers_of_a_gaussian_are_affine_in_the_start(schedule, weight, data, seed):
    """With the same noise, a mean of two starts ends in the mean of their ends."""
    sampler = data.draw(samplers(schedule))
    a, b = normal(seed, 2, 3, 2) * schedule.prior_std(schedule(1.0))

    def end(x):
        return run(sampler, GAUSSIAN, schedule, x, Fixed(seed, range(3))).x

    mixed = weight * end(a) + (1 - weight) * end(b)
    assert (end(weight * a + (1 - weight) * b) - mixed).abs().max() < 1e-9


@EXAMPLES
@given(st.sampled_from(WALKED), st.integers(1, 4), st.integers(0, 4), st.data(), SEEDS)
def test_a_walk_can_be_cut_where_nothing_is_remembered(schedule, steps, cut, data, seed):
    """Samplers without memory: the rest of a walk, from its middle, is the same bit for bit."""
    sampler = data.draw(samplers(schedule, steps, kinds=("ode", "noisy")))
    assume(sampler.memory == 0)
    times, x = sampler.times(schedule), normal(seed, 2, 2)
    cut = min(cut, steps - 1)
    whole = run(sampler, MIXTURE, schedule, x, Fixed(seed, range(2)), times).x
    noise = Fixed(seed, range(2))
    for step in sampler.trajectory(MIXTURE, schedule, levels(schedule(times[: cut + 1])), x, noise):
        x = step.x
    assert torch.equal(run(sampler, MIXTURE, schedule, x, noise, times[cut:]).x, whole)


@EXAMPLES
@given(st.sampled_from(WALKED), st.integers(2, 6), st.sampled_from(GRIDS), SEEDS)
def test_inversion_is_the_product_of_its_gains(schedule, steps, grid, seed):
    """On Gaussian data each step up multiplies x - alpha mean by a number; and with x0-hat known,
    DDIM comes back to the image."""
    sampler, x = DDIMInversion(steps, grid), normal(seed, 2, 2)
    times = sampler.times(schedule)
    assert torch.equal(times.flip(0), grid(schedule, steps)[:-1])
    walked = levels(schedule(times))
    expected = x - walked[0].alpha * GAUSSIAN.mean
    for t, s in itertools.pairwise(walked):
        gain = GAUSSIAN.gain(t)
        expected = expected * (s.alpha * gain + s.sigma / t.sigma * (1 - t.alpha * gain))
    end = run(sampler, GAUSSIAN, schedule, x).x
    size = 1 + float(expected.abs().max())
    assert (end - walked[-1].alpha * GAUSSIAN.mean - expected).abs().max() < 1e-10 * size
    up = run(sampler, Constant(x[0]), schedule, x).x
    down = run(DDIM(steps, grid), Constant(x[0]), schedule, up, None, times.flip(0)).x
    assert (down - x).abs().max() < 1e-10


# ---------------------------------------------------------------- orders, exactly

COEFFICIENTS = st.lists(st.floats(-2, 2), min_size=4, max_size=4)


@EXAMPLES
@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=4), COEFFICIENTS, st.floats(0.1, 1))
def test_adams_bashforth_weights_integrate_polynomials(gaps, coefficients, end):
    """Exact on any nodes for every polynomial of fewer terms than there are nodes."""
    nodes = torch.tensor([0.0, *gaps[1:]], dtype=torch.float64).cumsum(0)
    polynomial = np.polynomial.Polynomial(coefficients[: len(nodes)])
    for length in (end, -end):
        weights = _integrals(nodes, length)
        got = float((weights * torch.from_numpy(polynomial(nodes.numpy()))).sum())
        size = float(weights.abs().sum())
        assert abs(got - polynomial.integ()(length)) < 1e-9 * (1 + size)


@EXAMPLES
@given(
    st.sampled_from(["midpoint", "heun", "rk4", "adaptive", "ab1", "ab2", "ab3", "ab4"]),
    st.booleans(),
    st.lists(st.floats(0.15, 1), min_size=5, max_size=5),
    COEFFICIENTS,
    SEEDS,
)
def test_frame_samplers_integrate_polynomial_slopes(name, straight, gaps, coefficients, seed):
    """A slope that is a polynomial in tau is integrated exactly up to the method's degree."""
    schedule, frame = ContinuousVP(), Straight() if straight else VE()
    degree = {"midpoint": 1, "heun": 1, "rk4": 3, "adaptive": 2}.get(name, int(name[-1] == "1"))
    if name.startswith("ab"):
        degree = int(name[2]) - 1
    make = {"midpoint": Midpoint, "heun": Heun, "rk4": RK4, "adaptive": Adaptive}
    sampler = make.get(name, lambda frame: AdamsBashforth(frame=frame, order=degree + 1))(
        frame=frame
    )
    slope = np.polynomial.Polynomial(coefficients[: degree + 1])

    @answering
    def denoise(x, level):
        """The x0-hat whose slope in the frame is the polynomial."""
        c, tau = frame(level)
        wanted = torch.as_tensor(slope(tau.numpy()))
        shape = (-1, 1) if tau.ndim else ()
        sigma, c = level.sigma.view(shape), c.view(shape)
        return Denoised((x - sigma * wanted.view(shape)) / c)

    t = 0.1 + 0.85 * torch.tensor(gaps, dtype=torch.float64).cumsum(0).flip(0) / sum(gaps)
    walked = levels(schedule(t))
    past = []
    for level in walked[:-2]:  # what a method of more steps remembers, on no one's trajectory
        x = normal(seed, 2, 2)
        past.append(Step(level, x, level, x, ask(denoise, x, level).x0))
    past = past[len(past) - sampler.memory :]
    t, s = walked[-2:]
    x = normal(seed + 1, 2, 2)
    out = sampler.step(denoise, Here(x, t, past, schedule, None), s).x
    (c_t, tau_t), (c_s, tau_s) = frame(t), frame(s)
    integral = slope.integ()(float(tau_s)) - slope.integ()(float(tau_t))
    size = 1 + max(abs(slope(float(frame(level)[1]))) for level in walked)
    assert (out / c_s - x / c_t - integral).abs().max() < 1e-8 * size


@EXAMPLES
@given(
    st.sampled_from(["dpm2", "dpm3", "uni3", "bh1"]),
    st.lists(st.floats(0.2, 1.5), min_size=4, max_size=4),
    COEFFICIENTS,
    st.sampled_from([RectifiedFlow(), ContinuousVP(), VarianceExploding()]),
    SEEDS,
)
def test_exponential_integrators_integrate_polynomial_estimates(
    name, gaps, coefficients, schedule, seed
):
    """An x0-hat polynomial in lambda is integrated exactly, predictor and corrector."""
    degree = {"dpm2": 1, "dpm3": 2}.get(name, 2)
    sampler = {
        "dpm2": DPMSolverMultistep(order=2, rule="heun"),
        "dpm3": DPMSolverMultistep(order=3),
        "uni3": UniPC(order=3),
        "bh1": UniPC(order=3, variant="bh1"),
    }[name]
    estimate = np.polynomial.Polynomial(coefficients[: degree + 1])
    lam = torch.tensor([-2.5, *gaps], dtype=torch.float64).cumsum(0)
    walked = levels(schedule(schedule.time_of(2 * lam)))

    def at(level):
        return torch.full((2, 2), estimate(0.5 * float(level.log_snr)), dtype=torch.float64)

    def flow(x, t, s):
        """The exact solution, by a quadrature that is exact to rounding."""
        low, high = 0.5 * float(t.log_snr), 0.5 * float(s.log_snr)
        nodes, weights = np.polynomial.legendre.leggauss(16)
        u = 0.5 * (high - low) * nodes + 0.5 * (high + low)
        integral = 0.5 * (high - low) * (weights * np.exp(u - high) * estimate(u)).sum()
        return s.sigma / t.sigma * x + s.alpha * integral

    past = [
        Step(b, normal(seed, 2, 2), a, normal(seed, 2, 2), at(a))
        for a, b in itertools.pairwise(walked[:-1])
    ][-sampler.memory :]
    t, s = walked[-2:]
    x = normal(seed + 1, 2, 2)
    out = sampler.step(lambda query: Denoised(at(query.at)), Here(x, t, past, schedule, None), s)
    size = 1 + float(abs(estimate(lam.numpy())).max() + out.x_t.abs().max())
    if isinstance(sampler, UniPC):
        corrected = flow(past[-1].x_t, past[-1].t, t)
        assert (out.x_t - corrected).abs().max() < 1e-8 * size
        x = out.x_t
    assert (out.x - flow(x, t, s)).abs().max() < 1e-8 * size


@EXAMPLES
@given(
    st.sampled_from([(Midpoint, 2), (Heun, 2), (RK4, 4)]),
    st.booleans(),
    st.floats(-2, 2),
    INNER,
    FRACTION,
    SEEDS,
)
def test_runge_kutta_of_a_linear_slope_is_a_taylor_polynomial(
    method, straight, rate, t, share, seed
):
    """On dz/dtau = k z one step is 1 + h k + ... + (h k)^p / p!, p the order."""
    (make, order), frame, schedule = method, Straight() if straight else VE(), ContinuousVP()
    t, s = schedule(t), schedule(t * share)
    (c_t, tau_t), (c_s, tau_s) = frame(t), frame(s)

    @answering
    def denoise(x, level):
        c = frame(level)[0]
        return Denoised((x - level.sigma * rate * x / c) / c)

    x = normal(seed, 2, 2)
    out = make(frame=frame).step(denoise, Here(x, t, [], schedule, None), s).x
    power = float(tau_s - tau_t) * rate
    growth = sum(power**k / math.factorial(k) for k in range(order + 1))
    size = 1 + math.exp(abs(power)) if abs(power) < 9 else 1 + power**order
    assert (out / c_s - growth * x / c_t).abs().max() < 1e-9 * size / float(c_t)


@EXAMPLES
@given(st.lists(st.floats(0.2, 1.5), min_size=2, max_size=2), st.sampled_from(MAPPED), SEEDS)
def test_the_midpoint_rule_is_that_of_the_paper(gaps, schedule, seed):
    """2M of Lu et al.: D = (1 + 1 / 2r) x0 - (1 / 2r) the last one stands for the whole step."""
    lam = torch.tensor([-2.5, *gaps], dtype=torch.float64).cumsum(0)
    before, t, s = levels(schedule(schedule.time_of(2 * lam)))
    x, x0, old = normal(seed, 3, 2, 2)
    past = [Step(t, x, before, x, old)]
    sampler = DPMSolverMultistep(order=2)
    out = sampler.step(lambda query: Denoised(x0), Here(x, t, past, schedule, None), s).x
    r = gaps[0] / gaps[1]
    d = (1 + 0.5 / r) * x0 - 0.5 / r * old
    expected = s.sigma / t.sigma * x - s.alpha * math.expm1(-gaps[1]) * d
    assert (out - expected).abs().max() < 1e-7 * (1 + float(expected.abs().max()))


# ---------------------------------------------------------------- guidance and constraints

FLOW = RectifiedFlow()
GUIDED = GaussianDiffusion(Net(), FLOW, Velocity())
WEAK = GaussianDiffusion(Net(7), FLOW, Velocity())


@EXAMPLES
@given(
    st.floats(-3, 6),
    st.lists(INNER, min_size=1, max_size=4),
    st.one_of(st.builds(PowerCosine, st.floats(0.2, 5)), st.just(Interval(0.3, 0.7))),
    st.booleans(),
    SEEDS,
)
def test_strength_is_a_factor_on_the_guidance_of_each_row(scale, times, strength, weak, seed):
    """c + (scale - 1) strength (c - u), each row by its own level, for both kinds of guidance."""
    level = FLOW(torch.tensor(times, dtype=torch.float64))
    x, label = normal(seed, len(times), 3), torch.arange(len(times)) % 4
    factor = strength(level)
    assert ((factor >= 0) & (factor <= 1)).all()
    c = ask(GUIDED, x, level, label).x0
    if weak:
        u = ask(WEAK, x, level, label).x0
        guided = ask(AutoGuidance(lambda: WEAK, scale, strength)(GUIDED), x, level, label).x0
    else:
        u = ask(GUIDED, x, level).x0
        guided = ask(ClassifierFree(scale, strength)(GUIDED), x, level, label).x0
    expected = c + (scale - 1) * factor[:, None] * (c - u)
    assert (guided - expected).abs().max() < 1e-11 * (1 + abs(scale))


@EXAMPLES
@given(
    st.floats(-3, 6),
    st.lists(st.integers(-4, 4), min_size=1, max_size=3),
    INNER,
    SEEDS,
)
def test_composed_labels_are_a_sum(scale, row, t, seed):
    """Order and null classes do not matter, k with not k is nothing, one class is plain guidance.

    -1 - k is "not k" and 4 is the null class.
    """
    x, level = normal(seed, 2, 3), FLOW(t)

    def guided(classes):
        label = torch.tensor([classes] * 2)
        return ask(ClassifierFree(scale)(GUIDED), x, level, label).x0

    u, out = ask(GUIDED, x, level).x0, guided(row)
    assert (guided([4, *reversed(row)]) - out).abs().max() < 1e-11
    assert (guided([*row, 2, ~2]) - out).abs().max() < 1e-11
    expected = u
    for k in row:
        label = torch.tensor([k if k >= 0 else ~k] * 2)
        plain = ask(ClassifierFree(scale)(GUIDED), x, level, label).x0
        expected = expected + (1 if k >= 0 else -1) * (plain - u)
    assert (out - expected).abs().max() < 1e-11 * (1 + abs(scale))


@EXAMPLES
@given(st.floats(1, 6), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 10), SEEDS)
def test_rules_scale_with_their_images(scale, share, parallel, factor, seed):
    """Rescaling moves the standard deviation `share` of the way to c's; both rules are of degree 1,
    and a radius bounds how far projected guidance goes."""
    u, c = normal(seed, 2, 3, 8)
    s = torch.tensor(scale, dtype=torch.float64)
    plain, rescaled = scale * c + (1 - scale) * u, Rescaled(share).fresh()(u, c, s)
    expected = share * c.std(1) + (1 - share) * plain.std(1)
    assert torch.allclose(rescaled.std(1), expected, rtol=1e-9)
    assert torch.allclose(rescaled / rescaled.std(1)[:, None], plain / plain.std(1)[:, None])
    for rule in (Rescaled(share), Projected(parallel)):
        one, many = rule.fresh()(u, c, s), rule.fresh()(factor * u, factor * c, s)
        assert torch.allclose(many, factor * one, rtol=1e-9, atol=1e-10)
    moved = Projected(parallel, radius=factor).fresh()(u, c, s) - c
    assert (moved.norm(dim=1) <= (scale - 1) * factor * (1 + 1e-9) + 1e-12).all()


@EXAMPLES
@given(st.floats(0, 5), INNER, st.integers(0, 3), st.sampled_from(MAPPED), SEEDS)
def test_a_linear_classifier_guides_along_its_rows(scale, t, label, schedule, seed):
    """The gradient of a linear softmax is its row less the mean row; sigma^2 / alpha of it."""
    matrix = normal(seed, 4, 3)

    class Classifier(torch.nn.Module):
        denoises = False

        def forward(self, x, c_noise, label=None):
            return x @ matrix.T

    model = GaussianDiffusion(Net(), schedule, V())
    classifier = GaussianDiffusion(Classifier(), schedule, V())
    x, level = normal(seed + 1, 2, 3), schedule(t)
    labels = torch.full((2,), label)
    guided = ask(ClassifierGuidance(lambda: classifier, scale)(model), x, level, labels).x0
    gradient = matrix[label] - (x @ matrix.T).softmax(1) @ matrix
    factor = scale * level.sigma**2 / level.alpha
    expected = ask(model, x, level).x0 + factor * gradient
    assert torch.allclose(guided, expected, rtol=1e-9, atol=1e-9)


@EXAMPLES
@given(st.floats(-2, 0.5), st.floats(0.1, 3), st.floats(0.05, 1), st.floats(1, 20), SEEDS)
def test_constraints_are_projections(low, width, quantile, factor, seed):
    """Into their range, unchanged there, never further apart; a threshold at the maximum knows no
    brightness, and each image is its own."""
    x, y = 2 * normal(seed, 2, 3, 8)
    clip, level = Clip(low, low + width), FLOW(0.5)
    once = clip(x, level)
    assert (once >= low).all() and (once <= low + width).all()
    assert torch.equal(clip(once, level), once)
    assert ((once - clip(y, level)).abs() <= (x - y).abs() + 1e-15).all()
    threshold = DynamicThreshold(quantile)
    once = threshold(x, level)
    assert (once.abs() <= 1).all() and (once.sign() == x.sign()).all()
    small = x.clamp(-1, 1)
    assert torch.equal(threshold(small, level), small)
    assert torch.equal(torch.cat([threshold(row[None], level) for row in x]), once)
    most = DynamicThreshold(1.0)
    large = x / x.abs().amax(1, keepdim=True) * 1.5
    assert torch.allclose(most(factor * large, level), most(large, level), rtol=1e-5)


@EXAMPLES
@given(st.sampled_from(WALKED), st.floats(0, 1), SEEDS)
def test_inpainting_changes_the_known_part_alone(schedule, t, seed):
    """There the image at the level's noise; bit for bit the image and idempotent at sigma = 0."""
    image, x = normal(seed, 2), normal(seed + 1, 3, 2)
    known = torch.tensor([1.0, 0.0])
    for level in (schedule(t), schedule(0.0)):
        out = Inpaint(image, known)(x, level, Fixed(seed, range(3)))
        eps = Fixed(seed, range(3)).normal(x)
        assert torch.equal(out[:, 1], x[:, 1])
        assert torch.allclose(out[:, 0], level.alpha * image[0] + level.sigma * eps[:, 0])
    assert torch.equal(out[:, 0], image[0].expand(3))
    assert torch.equal(Inpaint(image, known)(out, level, Fixed(seed, range(3))), out)


@EXAMPLES
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 10), SEEDS)
def test_slerp_is_a_walk_on_the_arc(weight, share, scale, seed):
    """Backwards it is the same walk, part of a part is the product, and units do not matter."""
    a, b = normal(seed, 2, 3, 4)
    mixed = slerp(a, b, weight)
    assert torch.allclose(slerp(b, a, 1 - weight), mixed, rtol=1e-9, atol=1e-9)
    assert torch.allclose(slerp(scale * a, scale * b, weight), scale * mixed, rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.cat([slerp(a[i, None], b[i, None], weight) for i in range(3)]), mixed)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    part = slerp(a, slerp(a, b, weight), share)
    assert torch.allclose(part, slerp(a, b, weight * share), atol=1e-6)


# ---------------------------------------------------------------- seeds, data, labels and averages

KEYS = st.lists(
    st.one_of(st.integers(-5, 200), st.sampled_from(["", "a", "1", "sample"])), max_size=3
)


@EXAMPLES
@given(KEYS, KEYS, st.integers(2, 60))
def test_streams_and_orders_are_of_their_keys_alone(one, two, n):
    """Equal keys, equal numbers, whatever torch's own state is; other keys, others."""
    torch.manual_seed(n)
    first = torch.rand(4, generator=seeded_generator(*one))
    order = permutation(n, *one)
    torch.manual_seed(n + 1)
    state = torch.get_rng_state()
    assert torch.equal(torch.rand(4, generator=seeded_generator(*one)), first)
    assert torch.equal(permutation(n, *one), order)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(order.sort().values, torch.arange(n))
    if one != two:
        assert not torch.equal(torch.rand(4, generator=seeded_generator(*two)), first)
        assert n < 30 or not torch.equal(permutation(n, *two), order)


@EXAMPLES
@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 6), st.integers(1, 5), st.data())
def test_sample_noise_is_of_seed_and_number(seed, first, count, calls, data):
    """However a request is cut into batches, each image gets the same numbers in each call."""
    cut = data.draw(st.integers(0, count))
    blank = torch.zeros(count, 2, dtype=torch.float64)
    whole = SampleNoise(seed, first, count)
    parts = [SampleNoise(seed, first, cut), SampleNoise(seed, first + cut, count - cut)]
    for _ in range(calls):
        drawn = [
            p.normal(b) for p, b in zip(parts, (blank[:cut], blank[cut:]), strict=True) if len(b)
        ]
        assert torch.equal(torch.cat(drawn), whole.normal(blank))
        drawn = [p.uniform(n) for p, n in zip(parts, (cut, count - cut), strict=True) if n]
        assert torch.equal(torch.cat(drawn), whole.uniform(count))


@EXAMPLES
@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(0, 30), st.booleans(), SEEDS,
    st.integers(0, 50),
)  # fmt: skip
def test_ranks_share_the_batches_of_one_process(world, size, extra, drop_last, seed, epoch):
    """Batch by batch and in order, the ranks' rows are those of the one order of (seed, epoch)."""
    n = world * size + extra
    ranks = []
    for rank in range(world):
        loader = TensorLoader(
            (torch.arange(n),), size, seed=seed, drop_last=drop_last, rank=rank, world_size=world
        )
        loader.set_epoch(epoch)
        ranks.append([batch[0] for batch in loader])
    joined = [torch.cat(parts) for parts in zip(*ranks, strict=True)]
    assert all(len(batch) == world * size for batch in joined[:-1])
    order = permutation(n, "epoch order", seed, epoch)
    rows = torch.cat(joined)
    assert torch.equal(rows, order[: len(rows)])
    assert len(rows) == (n // (world * size) * world * size if drop_last else n)
    lengths = [len(rank[-1]) for rank in ranks]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1


CLASS = st.integers(0, 9)


@EXAMPLES
@given(
    st.lists(st.lists(CLASS, min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(CLASS, max_size=2),
    st.integers(1, 30),
    st.integers(0, 2),
    st.integers(1, 3),
)
def test_prompts_expand_in_turn(choices, away, count, where, spaces):
    """Image i takes choice i mod K, filled up with the null class, then every "not"."""
    gap = " " * spaces
    words = [f"{gap}and{gap}".join(map(str, choice)) for choice in choices]
    clauses = [f"not{gap}{n}" for n in away]
    clauses.insert(min(where, len(away)), f"{gap}or{gap}".join(words))
    label = expand_labels(f"{gap},".join(clauses), count, 10)
    if not away and all(len(choice) == 1 for choice in choices):
        expected = [choices[i % len(choices)][0] for i in range(count)]
    else:
        width = max(map(len, choices))
        rows = [[*c, *[10] * (width - len(c)), *(~n for n in away)] for c in choices]
        expected = [rows[i % len(rows)] for i in range(count)]
    assert label.dtype == torch.int64 and label.tolist() == expected
    assert torch.equal(expand_labels(label, count, 10), label)
    for choice in range(len(choices)):
        taken = len(range(choice, count, len(choices)))
        assert taken in (count // len(choices), -(-count // len(choices)))


@EXAMPLES
@given(st.lists(CLASS, min_size=1, max_size=6), st.integers(1, 40), st.integers(1, 12))
def test_lists_of_labels_are_repeated(numbers, count, classes):
    label = expand_labels(numbers, count, 10)
    assert label.tolist() == [numbers[i % len(numbers)] for i in range(count)]
    assert torch.equal(label, expand_labels(" or ".join(map(str, numbers)), count, 10))
    shares = torch.bincount(expand_labels("all", count, classes), minlength=classes)
    assert shares.sum() == count and shares.max() - shares.min() <= 1


@EXAMPLES
@given(st.floats(0, 0.9999), st.floats(1, 100), st.integers(1, 30), st.integers(1, 12))
def test_the_average_of_constant_weights_is_its_closed_form(decay, warmup, warm, count):
    """Weights 1 at the start and 0 from then on: what is left of the start is the product of the
    decays; all decays 1 give Gamma functions."""
    from diffusion_lab.training.ema import EMA  # here, since Lightning takes seconds to import

    ema = EMA(decay, warmup)
    module = torch.nn.Linear(1, 1, bias=False).double()
    module.register_buffer("seen", torch.full((1,), -1.0))
    copy = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=ema._move)
    ema._average_model = copy
    left = 1.0
    for n in range(count + 1):
        with torch.no_grad():
            module.weight.fill_(float(n == 0))
        module.seen.fill_(float(n))
        copy.update_parameters(module)
        left *= ema.decay_at(n) if n else 1.0
        assert copy.module.weight.item() == pytest.approx(left, rel=1e-9, abs=1e-15)
        assert copy.module.seen.item() == n
    decays = [ema.decay_at(n) for n in range(1, warm + 1)]
    assert all(0 <= d <= decay for d in decays)
    assert all(b >= a for a, b in itertools.pairwise(decays))
    if decays[-1] < decay:
        log = math.lgamma(warm + 2) + math.lgamma(warmup + 1) - math.lgamma(warmup + warm + 1)
        assert math.log(math.prod(decays)) == pytest.approx(log, rel=1e-9, abs=1e-9)

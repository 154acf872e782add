"""The variational bound as a whole and the probability flow ODE, against closed forms."""

import math
from functools import partial

import pytest
import torch
from exact import GaussianData, MixtureData, answering, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lab.diffusion.bound import BIN, bound_terms, bounds_by_end, grey_log_probability
from diffusion_lab.diffusion.gaussian import Level, levels, posterior, transition
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import X0
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    ContinuousVP,
    LinearBetas,
    RectifiedFlow,
    VarianceExploding,
)
from diffusion_lab.sampling.adaptive import Adaptive
from diffusion_lab.sampling.ode import RK4, VE, Midpoint, Straight
from diffusion_lab.sampling.ode_likelihood import (
    GREY_OFFSET,
    ExactDivergence,
    Hutchinson,
    dequantised,
    flow_path,
    flow_terms,
    prior_moments,
)
from diffusion_lab.sampling.sample_noise import SampleNoise
from diffusion_lab.sampling.spacing import Trailing, UniformLogSNR

SCHEDULES = [
    LinearBetas(1000), LinearBetas(300), ContinuousVP(), RectifiedFlow(), ContinuousCosine(),
    VarianceExploding(),
]  # fmt: skip
NAMES = [f"{type(s).__name__}-{s.steps}" for s in SCHEDULES]


class Crossed:
    """Noise that is +1 and -1 in turn: with x0 = (d, d, -d, -d) all moments up to the third."""

    def normal(self, like):
        return torch.tensor([1.0, -1.0, 1.0, -1.0]).double().expand_as(like)


def crossed(schedule, times, variance, std=0.5, prior=None):
    """The bound of data N(0, std^2) with its optimal denoiser: all terms are quadratic."""
    x0 = std * torch.tensor([[1.0, 1.0, -1.0, -1.0]]).double()
    data = GaussianData([0.0] * 4, [std] * 4)
    path = levels(schedule(times))
    prior = (0.0, marginal_std(path[0], std)) if prior is None else prior
    terms = bound_terms(data, x0, path, Crossed(), variance, grey=False, prior=prior)
    assert terms.shape == (1, len(times))
    return terms[0]


def marginal_std(level, std):
    return torch.sqrt(level.alpha**2 * std**2 + level.sigma**2)


def optimal(std):
    """Log variance of x_s given x_t in data N(0, std^2), where x0-hat is the mean."""

    def log_variance(s: Level, t: Level):
        mmse = std**2 * t.sigma**2 / (t.alpha**2 * std**2 + t.sigma**2)
        _, c_0, small = posterior(s, t)
        return (small + c_0**2 * mmse).log()

    return log_variance


def entropy(std):
    return 0.5 * math.log(2 * math.pi * math.e * std**2)


# ---------------------------------------------------------------- the bound


def test_the_bound_hits_its_closed_forms():
    """Data N(0, 1/4), T = 1000 (NUMERICS 5): nats per dimension."""
    schedule = LinearBetas(1000)
    times = Trailing()(schedule, None)
    assert float(crossed(schedule, times, optimal(0.5)).sum()) == pytest.approx(
        entropy(0.5), abs=1e-8
    )
    for fraction, known in ((1.0, 0.726884), (0.0, 1.182140)):
        terms = crossed(schedule, times, fraction)
        expected = closed_form(schedule, fraction)
        assert float(terms.sum()) == pytest.approx(expected, abs=1e-8)
        assert expected == pytest.approx(known, abs=1e-6)


def closed_form(schedule, fraction, std=0.5):
    """The whole bound at a fixed variance, written out step by step."""
    total, count = 0.0, schedule.steps
    for k in range(1, count + 1):
        s, t = schedule((k - 1) / count), schedule(k / count)
        mmse = float(std**2 * t.sigma**2 / (t.alpha**2 * std**2 + t.sigma**2))
        large = float(transition(s, t)[1])
        if k == 1:
            total += 0.5 * (math.log(2 * math.pi * large) + mmse / large)
            continue
        _, c_0, small = map(float, posterior(s, t))
        variance = small ** (1 - fraction) * large**fraction
        total += 0.5 * (math.log(variance / small) + small / variance - 1)
        total += 0.5 * c_0**2 * mmse / variance
    last = schedule(1.0)
    spread = float(marginal_std(last, std)) ** 2
    q = float(last.sigma) ** 2
    return (
        total
        + 0.5 * (q / spread - 1 + math.log(spread / q))
        + 0.5 * (float(last.alpha) ** 2 * std**2 / spread)
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize("grid", [Trailing(), UniformLogSNR()], ids=["time", "log_snr"])
def test_at_the_optimal_variance_any_grid_gives_the_entropy(schedule, grid):
    """Reverse steps of Gaussian data are Gaussian: the bound is tight however few there are."""
    for steps in (2, 7, 50):
        terms = crossed(schedule, grid(schedule, steps), optimal(0.5))
        assert float(terms.sum()) == pytest.approx(entropy(0.5), abs=1e-8)


@settings(max_examples=50)
@given(st.integers(2, 40), st.floats(0, 1), st.floats(0.1, 3))
def test_no_variance_and_no_prior_beats_the_entropy(steps, fraction, std):
    schedule = LinearBetas(300)
    times = UniformLogSNR()(schedule, steps)
    least = entropy(std) - 1e-9
    assert float(crossed(schedule, times, fraction, std).sum()) >= least
    assert float(crossed(schedule, times, optimal(std), std, (0.0, 1.0)).sum()) >= least
    assert float(crossed(schedule, times, optimal(std), std, (0.3, 1.2)).sum()) >= least


def test_more_steps_tighten_the_bound():
    schedule = RectifiedFlow()
    totals = [
        float(crossed(schedule, UniformLogSNR()(schedule, steps), 0.0)[:-1].sum())
        for steps in (10, 20, 40, 80, 160)
    ]
    assert totals == sorted(totals, reverse=True)


def test_a_learned_variance_is_the_one_that_is_used():
    schedule, path = LinearBetas(50), levels(LinearBetas(50)(Trailing()(LinearBetas(50), 10)))
    x0, data = torch.randn(3, 4).double(), GaussianData([0.0] * 4, [1.0] * 4)

    @answering
    def learned(x_t, level):
        return ask(data, x_t, level)._replace(variance_fraction=torch.full_like(x_t, 0.3))

    terms = [
        bound_terms(denoise, x0, path, SampleNoise(0, 0, 3), variance)
        for denoise, variance in ((learned, None), (data, 0.3), (learned, 0.7))
    ]
    assert torch.allclose(terms[0], terms[1], rtol=1e-12)
    assert not torch.allclose(terms[0], terms[2])
    with pytest.raises(ValueError, match="learned_variance"):
        bound_terms(data, x0, path, SampleNoise(0, 0, 3), None)
    with pytest.raises(ValueError, match="must fall, down to t = 0"):
        bound_terms(data, x0, path[:-1], SampleNoise(0, 0, 3))
    with pytest.raises(ValueError, match="must fall"):
        bound_terms(data, x0, list(reversed(path)), SampleNoise(0, 0, 3))
    assert schedule.steps == 50


def test_an_images_bound_does_not_depend_on_its_batch():
    schedule = RectifiedFlow()
    path = levels(schedule(UniformLogSNR()(schedule, 8)))
    x0 = torch.randint(0, 256, (5, 6)).double() * BIN - 1
    data = GaussianData([0.0] * 6, [0.5] * 6)
    whole = bound_terms(data, x0, path, SampleNoise(3, 0, 5))
    halves = [
        bound_terms(data, x0[a:b], path, SampleNoise(3, a, b - a)) for a, b in ((0, 2), (2, 5))
    ]
    assert torch.allclose(whole, torch.cat(halves), rtol=1e-12)
    assert not torch.allclose(whole, bound_terms(data, x0, path, SampleNoise(4, 0, 5)))


def test_bounds_by_end_are_the_bounds_of_shorter_paths():
    schedule = RectifiedFlow()
    path = levels(schedule(UniformLogSNR()(schedule, 6)))
    greys = torch.tensor([[100.0, 101.0, 255.0, 0.0]]).double() * BIN - 1
    for data, x0, more in (
        (GaussianData([0.0] * 4, [0.5] * 4), 2 * greys + 0.3, {"grey": False, "prior": (0.1, 1.1)}),
        (GaussianData([0.0] * 4, [0.5] * 4), greys, {}),
    ):
        found = bounds_by_end(data, x0, path, Crossed(), 0.4, **more)
        assert found.shape == (1, 6)
        for k in range(6):
            ended = [*path[: k + 1], path[-1]]
            terms = bound_terms(data, x0, ended, Crossed(), 0.4, **more)
            assert float(found[0, k]) == pytest.approx(float(terms.sum()), rel=1e-12)


def test_far_grey_values_keep_their_digits_in_single_precision():
    greys = torch.tensor([[-1.0, -0.2, 0.2, 1.0]])
    log_var = torch.full_like(greys, 2 * math.log(0.01))
    for off in (-0.06, 0.06):
        single = grey_log_probability(greys, greys + off, log_var)
        double = grey_log_probability(greys.double(), greys.double() + off, log_var.double())
        assert torch.allclose(single.double(), double, rtol=1e-3)
    assert torch.allclose(
        grey_log_probability(greys, greys - 0.06, log_var),
        grey_log_probability(-greys, -(greys - 0.06), log_var),
    )


# ---------------------------------------------------------------- the ODE


def log_density(data, x, level=None):
    """Of data plus the noise of a level, over alpha: what the ODE's end is told apart by."""
    noise = 0.0 if level is None else float(level.sigma / level.alpha)
    if isinstance(data, GaussianData):
        normal = torch.distributions.Normal(data.mean, torch.sqrt(data.std**2 + noise**2))
        return normal.log_prob(x).sum(-1)
    std = math.sqrt(data.std**2 + noise**2)
    each = torch.distributions.Normal(data.means, std).log_prob(x[:, None]).sum(-1)
    return torch.logsumexp(each, 1) - math.log(len(data.means))


def exact_prior(data, level):
    return level.alpha * data.mean, torch.sqrt(level.alpha**2 * data.std**2 + level.sigma**2)


GAUSSIAN = GaussianData([0.5, -1.0, 0.0], [0.3, 1.0, 2.0])


def points(count=20, seed=0):
    return GAUSSIAN.mean + GAUSSIAN.std * torch.randn(
        count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def flow(schedule, steps, data=GAUSSIAN, x=None, **more):
    """log p of points by the ODE, and the exact one of what it scores."""
    x = points() if x is None else x
    path = flow_path(schedule, steps)
    if "prior" not in more:
        more["prior"] = exact_prior(data, path[0])
    terms = flow_terms(data, schedule, x, path, SampleNoise(0, 0, len(x)), **more)
    assert terms.shape == (len(x), steps + 1)
    return -terms.sum(1) * x.shape[1], log_density(data, x, path[-1])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_the_ode_hits_a_gaussians_density(schedule):
    found, expected = flow(schedule, 200)
    assert float((found - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_each_interval_has_its_own_change_of_volume(schedule):
    """The flow of a Gaussian is linear: x grows as the marginal's standard deviation does."""
    path = flow_path(schedule, 60)
    data = GaussianData([0.0], [0.5])
    terms = flow_terms(data, schedule, torch.ones(2, 1).double(), path, SampleNoise(0, 0, 2))
    std = torch.stack([marginal_std(level, 0.5) for level in path])
    expected = (std[1:] / std[:-1]).log()
    expected[-1] -= path[-1].alpha.log()
    assert torch.allclose(terms[:, 1:], expected.expand(2, -1), atol=1e-4)
    end = torch.distributions.Normal(0.0, 1.0).log_prob(path[-1].alpha * std[0] / std[-1])
    assert float(terms[0, 0]) == pytest.approx(-float(end), rel=1e-4)


@pytest.mark.parametrize("schedule", [LinearBetas(1000), RectifiedFlow()], ids=["vp", "flow"])
def test_frames_agree_where_both_are_finite(schedule):
    if schedule.steps is None:
        with pytest.raises(ValueError, match="alpha"):
            flow(schedule, 10, frame=VE())
        return
    straight, expected = flow(schedule, 200, frame=Straight())
    ve, _ = flow(schedule, 200, frame=VE())
    assert float((ve - straight).abs().max()) < 1e-5
    assert float((ve - expected).abs().max()) < 1e-5


@pytest.mark.parametrize(("solver", "order"), [(RK4, 4), (Midpoint, 2)])
def test_the_ode_converges_at_its_order(solver, order):
    schedule = LinearBetas(1000)
    errors = []
    for steps in (40, 80, 160):
        found, expected = flow(schedule, steps, solver=solver)
        errors.append(float((found - expected).pow(2).mean().sqrt()))
    slope = math.log2(errors[1] / errors[2])
    assert slope == pytest.approx(order, abs=0.2), errors


def test_the_usual_prior_costs_what_it_is_wrong_by():
    """N(0, 1) in place of the exact end: the difference of the two log densities there."""
    schedule = LinearBetas(300)
    exact, _ = flow(schedule, 100)
    usual, _ = flow(schedule, 100, prior=(0.0, 1.0))
    assert float((exact - usual).abs().max()) > 1e-3
    many, _ = flow(schedule, 200, prior=(0.0, 1.0))
    assert float((many - usual).abs().max()) < 1e-4, "it does not depend on the steps"


def test_the_adaptive_solver_keeps_its_tolerance_and_images_their_clocks():
    schedule = RectifiedFlow()
    errors = []
    for tolerance in (1e-3, 1e-6):
        solver = partial(Adaptive, rtol=tolerance, atol=tolerance, max_calls=5000)
        found, expected = flow(schedule, 5, solver=solver)
        errors.append(float((found - expected).abs().max()))
    assert errors[1] < 1e-4 and errors[1] < errors[0] / 20
    alone, _ = flow(schedule, 5, x=points()[:1], solver=partial(Adaptive, rtol=1e-3, atol=1e-3))
    among, _ = flow(schedule, 5, solver=partial(Adaptive, rtol=1e-3, atol=1e-3))
    assert float(alone[0]) == pytest.approx(float(among[0]), abs=1e-9)


def test_the_trace_is_that_of_the_jacobian():
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    z = torch.randn(4, 5).double().requires_grad_()
    slope = (z @ matrix.T) ** 2
    expected = (2 * (z @ matrix.T) * matrix.diagonal()).sum(1)
    assert torch.allclose(ExactDivergence()(slope, z), expected)


def test_hutchinson_is_unbiased_and_more_vectors_spread_less():
    rows = 10_000
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    z = torch.zeros(rows, 5).double().requires_grad_()
    spreads = []
    for probes in (1, 4):
        rademacher = Hutchinson(z.detach(), SampleNoise(1, 0, rows), probes)
        assert len(rademacher.signs) == probes
        assert all(bool((v.abs() == 1).all()) for v in rademacher.signs)
        found = rademacher(z @ matrix.T, z)
        error = float(found.std()) / rows**0.5
        assert abs(float(found.mean() - matrix.trace())) < 4 * error
        spreads.append(float(found.var()))
    assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.1)
    symmetric = matrix + matrix.T
    off = symmetric - symmetric.diagonal().diag()
    found = Hutchinson(z.detach(), SampleNoise(1, 0, rows))(z @ symmetric.T, z)
    assert float(found.var()) == pytest.approx(2 * float(off.pow(2).sum()), rel=0.1)
    with pytest.raises(ValueError, match="probes=0"):
        Hutchinson(z, SampleNoise(1, 0, rows), 0)


def test_the_ode_with_hutchinson_is_unbiased():
    """On one mixture point many times over: the log densities spread about the exact one."""
    means = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.5, 0.0], [0.0, -1.0, 1.0]])
    data, schedule, rows = MixtureData(means, 0.4), RectifiedFlow(), 1500
    x = torch.tensor([[0.1, -0.2, 0.2]]).double().expand(rows, 3)
    more = {"data": data, "prior": (0.0, 1.0)}
    exact, _ = flow(schedule, 20, x=x[:1], **more, divergence=ExactDivergence())
    rademacher = Hutchinson(x, SampleNoise(5, 0, rows))
    found, _ = flow(schedule, 20, x=x, **more, divergence=rademacher)
    assert float(found.std()) > 0.01, "there is something to be estimated"
    assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / rows**0.5


def test_many_dimensions_are_estimated_and_few_are_exact():
    schedule = RectifiedFlow()
    for size, exact in ((16, True), (17, False)):
        data = MixtureData(torch.randn(3, size, generator=torch.Generator().manual_seed(0)), 0.5)
        path, x = flow_path(schedule, 6), torch.randn(4, size).double()
        runs = [
            flow_terms(data, schedule, x, path, SampleNoise(seed, 0, 4)).sum(1) for seed in (0, 1)
        ]
        assert torch.equal(*runs) == exact
        again = flow_terms(data, schedule, x[1:3], path, SampleNoise(0, 1, 2)).sum(1)
        assert torch.allclose(again, runs[0][1:3], atol=1e-10), "whatever the batch"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_a_path_goes_evenly_from_noise_to_the_cleanest_level(schedule):
    path = flow_path(schedule, 12)
    times = torch.stack([level.t for level in path])
    assert len(path) == 13 and bool((times.diff() < 0).all())
    assert float(times[0]) == schedule.t_max and float(times[-1]) == schedule.t_min
    rates = torch.stack([level.log_snr for level in path])
    inner = rates[1:] if not torch.isfinite(rates[0]) else rates
    assert torch.allclose(inner.diff(), inner.diff().mean().expand(len(inner) - 1), rtol=1e-3)
    with pytest.raises(ValueError, match="steps="):
        flow_path(schedule, 0)


# ---------------------------------------------------------------- both


def test_images_keep_their_shape_on_the_way():
    """A denoiser that sees (B, 1, 2, 3) and treats columns apart."""
    std = torch.tensor([0.3, 1.0, 2.0]).double()

    @answering
    def images(x, level):
        assert x.shape[1:] == (1, 2, 3)
        gain = level.alpha * std**2 / (level.alpha**2 * std**2 + level.sigma**2)
        return Denoised(gain * x)

    schedule = LinearBetas(1000)
    path = flow_path(schedule, 200)
    x = std * torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    prior = (0.0, marginal_std(path[0], std))
    terms = flow_terms(images, schedule, x, path, SampleNoise(0, 0, 4), prior=prior)
    noise = path[-1].sigma / path[-1].alpha
    expected = torch.distributions.Normal(0.0, torch.sqrt(std**2 + noise**2)).log_prob(x)
    assert torch.allclose(-6 * terms.sum(1), expected.flatten(1).sum(1), atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
@pytest.mark.parametrize("schedule", [LinearBetas(1000), RectifiedFlow()], ids=["vp", "flow"])
def test_the_bound_lies_above_the_ode(kind, schedule):
    """Exact denoisers: E of the bound >= -log p, which the ODE finds; and not by much."""
    count = 120
    means = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.5, 0.0], [0.0, -1.0, 1.0]])
    mixture = MixtureData(means, 0.4)
    if kind == "gaussian":
        data, x = GAUSSIAN, points(count, 1)
    else:
        generator = torch.Generator().manual_seed(2)
        data = mixture
        x = means.double()[torch.arange(count) % 3] + 0.4 * torch.randn(
            count, 3, generator=generator, dtype=torch.float64
        )
    path = flow_path(schedule, 60)
    prior = exact_prior(data, path[0]) if kind == "gaussian" else (0.0, 1.0)
    exact = flow_terms(data, schedule, x, path, SampleNoise(0, 0, count), prior=prior).sum(1)
    times = UniformLogSNR()(schedule, 100)
    for fraction, loose in ((0.0, 1.0), (1.0, 0.25)):
        bound = bound_terms(
            data, x, levels(schedule(times)), SampleNoise(0, 0, count), fraction, grey=False,
            prior=prior,
        ).sum(1)  # fmt: skip
        gap = bound - exact
        assert float(gap.mean()) > -3 * float(gap.std()) / count**0.5
        assert float(gap.mean()) < loose
    density = -log_density(data, x, path[-1]) / 3
    assert float((exact - density).abs().max()) < (1e-4 if kind == "gaussian" else 0.05)


def test_dequantised_density_bounds_the_probability_of_grey_values():
    """Of a normal of grey values; the offset is the width of a bin, 6.994 bits."""
    assert GREY_OFFSET / math.log(2) == pytest.approx(math.log2(127.5), abs=1e-12)
    greys = (torch.arange(1, 255).double() * BIN - 1)[:, None].repeat(1, 400)
    spread = dequantised(greys, SampleNoise(0, 0, len(greys)))
    assert float((spread - greys).abs().max()) <= BIN / 2 * (1 + 1e-6)
    offsets = (spread - greys).flatten() / BIN
    assert abs(float(offsets.mean())) < 4 * 12**-0.5 / len(offsets) ** 0.5
    assert float(offsets.var()) == pytest.approx(1 / 12, rel=0.02)
    normal = torch.distributions.Normal(torch.tensor(0.1).double(), 0.2)
    continuous = -normal.log_prob(spread).mean(1) + GREY_OFFSET
    edges = greys[:, 0] + BIN / 2 * torch.tensor([[1.0], [-1.0]]).double()
    probability = normal.cdf(edges[0]) - normal.cdf(edges[1])
    kept = probability > 1e-9
    gap = (continuous + probability.clamp_min(1e-300).log())[kept]
    assert float(gap.mean()) > 0 and float(gap.abs().max()) < 0.05


def test_the_prior_is_the_models_own():
    class Silent(torch.nn.Module):
        def forward(self, x, c_noise, label=None):
            return torch.zeros_like(x)

    like, schedule = torch.zeros(4, 3).double(), LinearBetas(300)
    level = schedule(1.0)
    plain = GaussianDiffusion(Silent(), schedule, X0())
    assert [float(part.mean()) for part in prior_moments(plain, level, like)] == [0.0, 1.0]
    matched = GaussianDiffusion(
        Silent(), schedule, X0(), data_mean=-0.7, data_std=0.6, matched_prior=True
    )
    mean, std = prior_moments(matched, level, like)
    assert mean.shape == std.shape == (1, 3)
    assert float(mean[0, 0]) == pytest.approx(-0.7 * float(level.alpha))
    assert float(std[0, 0]) == pytest.approx(float(marginal_std(level, 0.6)))
    noise = VarianceExploding()
    wide = GaussianDiffusion(Silent(), noise, X0())
    assert float(prior_moments(wide, noise(1.0), like)[1].mean()) == pytest.approx(80.0)

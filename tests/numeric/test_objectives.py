"""Time laws, weights, couplings and the variational bound against closed forms."""

import itertools
import math

import pytest
import torch
from exact import Drawn, GaussianData, ask, loss_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffusion_lab.diffusion.bound import (
    BIN,
    bound_term,
    grey_log_probability,
    log_variance,
    normal_kl,
    prior_term,
)
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.couplings import Independent, OptimalTransport
from diffusion_lab.diffusion.gaussian import levels, marginal, posterior, transition
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.objectives import (
    Batch,
    Classification,
    Regression,
    TrainContext,
    VariationalBound,
)
from diffusion_lab.diffusion.parameterizations import EDM, X0, Eps, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    CosineBetas,
    LinearBetas,
    RectifiedFlow,
    VarianceExploding,
    ZeroTerminalSNR,
)
from diffusion_lab.diffusion.times import (
    ImportanceTime,
    LogNormalSigma,
    StratifiedTime,
    UniformTime,
)
from diffusion_lab.diffusion.weights import (
    P2,
    ConstantWeight,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    SquaredError,
    TruncatedSNR,
)

TARGETS = [Eps(), X0(), V(), Velocity(), EDM(0.5)]
STEPS = LinearBetas(1000)(torch.linspace(0.01, 1, 64, dtype=torch.float64))


class Linear(torch.nn.Module):
    """A network of one number a channel, with as many outputs as asked."""

    num_classes = None

    def __init__(self, outputs=1, self_conditioning=False):
        super().__init__()
        self.self_conditioning = self_conditioning
        self.scale = torch.nn.Parameter(torch.full((outputs, 1), 0.3))
        self.told = []

    def forward(self, x, c_noise, label=None, estimate=None):
        self.told.append(estimate)
        return torch.cat([x * s for s in self.scale], dim=1)


def simple(**options):
    return Regression(UniformTime(), ConstantWeight(), SquaredError(), **options)


def images(count=64, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, size, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------- targets and weights


@given(st.floats(0.05, 3.0), st.floats(0.01, 1.0))
def test_edm_target_is_karras_preconditioning(data_std, t):
    """Table 1 of Karras et al. at alpha = 1: c_skip, c_out, unit variance, weight 1."""
    schedule, target = VarianceExploding(), EDM(data_std)
    level = schedule(t)
    sigma = level.sigma
    a, b = target.weights(level)
    d = target.determinant(level)
    c_skip = data_std**2 / (sigma**2 + data_std**2)
    c_out = sigma * data_std / (sigma**2 + data_std**2).sqrt()
    assert float(b / d) == pytest.approx(float(c_skip), rel=1e-12)
    assert float(-sigma / d) == pytest.approx(float(c_out), rel=1e-12)
    assert float(a**2 * data_std**2 + b**2) == pytest.approx(1.0, rel=1e-12)
    weight = EDMWeight(data_std)
    lam = (sigma**2 + data_std**2) / (sigma * data_std) ** 2
    assert float(weight.on_x0(level)) == pytest.approx(float(lam), rel=1e-12)
    assert float(weight.on_target(level, target)) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("schedule", [LinearBetas(100), ContinuousCosine(), RectifiedFlow()])
def test_edm_target_has_unit_variance_on_every_schedule(schedule):
    level = schedule(torch.linspace(0.01, 1, 50, dtype=torch.float64))
    a, b = EDM(0.7).weights(level)
    assert torch.allclose(a**2 * 0.49 + b**2, torch.ones_like(a))
    weight = EDMWeight(0.7).on_target(level, EDM(0.7))
    assert torch.allclose(weight, torch.ones_like(a))


def test_weights_are_their_papers():
    snr = (STEPS.alpha / STEPS.sigma) ** 2
    eps = Eps()
    cases = [
        (TruncatedSNR().on_x0(STEPS), snr.clamp(min=1)),
        (P2(1.0, 1.0).on_target(STEPS, eps), 1 / (1 + snr)),
        (P2(0.5, 2.0).on_target(STEPS, eps), (2 + snr) ** -0.5),
        (P2(0.0).on_target(STEPS, eps), torch.ones_like(snr)),
        (SigmoidWeight(2.0).on_target(STEPS, eps), torch.sigmoid(2.0 - snr.log())),
        (MinSNR(5.0).on_target(STEPS, V()), snr.clamp(max=5) / (snr + 1)),
        (EDMWeight(0.5).on_x0(STEPS), snr + 4),
    ]
    for got, expected in cases:
        assert torch.allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "weight",
    [TruncatedSNR(), MinSNR(), P2(), SigmoidWeight(), EDMWeight(0.5)],
    ids=lambda w: type(w).__name__,
)
def test_a_weight_is_one_loss_whatever_is_predicted(weight):
    x0, eps, guess = torch.randn(3, 64, 8, dtype=torch.float64)
    losses = []
    for target in TARGETS:
        model = GaussianDiffusion(torch.nn.Identity(), LinearBetas(1000), target)
        x_t = marginal(x0, eps, STEPS)
        a, b = target.weights(STEPS)
        implied = (x_t - STEPS.alpha[:, None] * guess) / STEPS.sigma[:, None]
        raw = a[:, None] * guess + b[:, None] * implied
        error = ((raw - model.target(x0, eps, STEPS)) ** 2).mean(1)
        losses.append(weight.on_target(STEPS, target) * error)
    for loss in losses[1:]:
        assert torch.allclose(loss, losses[0], rtol=1e-7)


# ---------------------------------------------------------------- times


def test_log_normal_sigma_is_log_normal():
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    schedule = VarianceExploding()
    level = schedule(LogNormalSigma(-1.2, 1.2).quantile(u, schedule))
    normal = torch.distributions.Normal(-1.2, 1.2)
    assert torch.allclose(normal.cdf(level.sigma.log()), u, atol=1e-10)
    flow, middle = RectifiedFlow(), u[30:70]
    inside = LogNormalSigma(0.0, 1.0)
    assert torch.equal(inside.times(flow, middle), inside.quantile(middle, flow))
    for other in (VarianceExploding(), LinearBetas(100), RectifiedFlow()):
        t = LogNormalSigma()(other, Drawn(), 500)
        assert (t >= other.t_min).all() and (t <= 1).all()
        assert torch.equal(other.snap(t), t)


@given(st.integers(1, 200), st.integers(0, 50))
def test_stratified_times_lie_one_in_each_part(n, seed):
    t = StratifiedTime(UniformTime())(RectifiedFlow(), Drawn(seed), n)
    schedule = RectifiedFlow()
    u = (t - schedule.t_min) / (1 - schedule.t_min)
    assert torch.equal((u * n - 1e-9).floor().clamp(0).long(), torch.arange(n))


def test_stratified_losses_vary_less():
    """Where the weight is what differs between images, most of the mean's variance goes."""
    x0, model = images(64, 64), GaussianDiffusion(Linear(), LinearBetas(1000), X0()).double()

    def spread(law):
        objective = Regression(law, MinSNR(5.0), SquaredError())
        means = [loss_of(objective, model, x0, Drawn(k)).mean().detach() for k in range(40)]
        return torch.stack(means).std()

    assert spread(StratifiedTime(UniformTime())) < 0.3 * spread(UniformTime())


def learned(bins=10, history=4, power=1.0):
    law = ImportanceTime(bins, history, uniform=0.01)
    for k in range(bins):
        t = torch.full((history,), (k + 0.5) / bins, dtype=torch.float64)
        law.observe(RectifiedFlow(), t, torch.full((history,), (k + 1.0) ** power))
    return law


def test_importance_is_uniform_until_it_has_seen_enough():
    law = ImportanceTime(10, 4)
    assert torch.allclose(law.probabilities, torch.full((10,), 0.1).double())
    law.observe(RectifiedFlow(), torch.full((40,), 0.05).double(), torch.ones(40))
    assert torch.allclose(law.probabilities, torch.full((10,), 0.1).double())
    p = learned().probabilities
    expected = 0.99 * torch.arange(1, 11).double() / 55 + 0.001
    assert torch.allclose(p, expected)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), LinearBetas(100)])
def test_importance_sampling_leaves_the_expected_loss(schedule):
    """E_p[loss / (bins p)] = E_uniform[loss], and the visits follow p."""
    law = learned()
    t = law.times(schedule, torch.linspace(0, 1 - 1e-9, 200_001, dtype=torch.float64))
    weights = law.importance(schedule, t)

    def loss(t):
        return 1 + t**2

    expected = loss(UniformTime().times(schedule, torch.linspace(0, 1, 200_002)[:-1].double()))
    assert float((weights * loss(t)).mean()) == pytest.approx(float(expected.mean()), rel=1e-3)
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-3)
    visits = torch.bincount(((t - 1e-9) * 10).long().clamp(0, 9), minlength=10) / len(t)
    assert torch.allclose(visits.double(), law.probabilities, atol=2e-2)


def test_importance_goes_on_from_its_state():
    law, other = learned(power=2.0), ImportanceTime(10, 4, 0.01)
    other.load_state_dict(law.state_dict())
    assert torch.equal(law.probabilities, other.probabilities)
    law.observe(RectifiedFlow(), torch.tensor([0.05]).double(), torch.tensor([9.0]))
    assert not torch.equal(law.probabilities, other.probabilities)


WRAPPED = pytest.mark.parametrize("wrapped", [lambda law: law, StratifiedTime])


@WRAPPED
def test_losses_are_divided_by_the_probability_that_drew_their_times(wrapped):
    """That of before the step, though the law learns from the losses, undivided, in it."""
    law, before = learned(), learned()
    time = wrapped(law)
    model = GaussianDiffusion(Linear(), LinearBetas(100), Eps()).double().train()
    loss = loss_of(Regression(time, ConstantWeight(), SquaredError()), model, images(), Drawn(1))

    class Same(UniformTime):
        def __call__(self, schedule, noise, n):
            return wrapped(before)(schedule, noise, n)

    plain = loss_of(Regression(Same(), ConstantWeight(), SquaredError()), model, images(), Drawn(1))
    t = wrapped(before)(LinearBetas(100), Drawn(1), 64)
    assert torch.allclose(loss, before.importance(LinearBetas(100), t) * plain)
    before.observe(LinearBetas(100), t, plain)
    assert torch.allclose(law.probabilities, before.probabilities)
    assert not torch.allclose(law.probabilities, learned().probabilities)


@WRAPPED
def test_the_objective_carries_what_its_law_learned(wrapped):
    law, fresh = learned(), ImportanceTime(10, 4, 0.01)
    old, new = (Regression(wrapped(one), ConstantWeight(), SquaredError()) for one in (law, fresh))
    new.load_learned_state(old.learned_state())
    assert torch.equal(fresh.probabilities, law.probabilities)
    assert not torch.equal(fresh.probabilities, ImportanceTime(10, 4, 0.01).probabilities)
    old.check(LinearBetas(100))
    with pytest.raises(ValueError, match="must divide"):
        Regression(wrapped(ImportanceTime(7)), ConstantWeight(), SquaredError()).check(
            LinearBetas(100)
        )


def test_a_stored_state_stays_as_it_was():
    law = learned()
    state = law.state_dict()
    before = {name: part.clone() for name, part in state.items()}
    law.observe(RectifiedFlow(), torch.full((3,), 0.35).double(), torch.full((3,), 9.0))
    assert all(torch.equal(state[name], part) for name, part in before.items())
    assert not torch.equal(law.losses, state["losses"])


def test_a_stratified_law_is_the_law_inside_in_all_else():
    inner, flow = learned(), RectifiedFlow()
    law = StratifiedTime(inner)
    u = torch.linspace(0, 0.99, 50, dtype=torch.float64)
    assert torch.equal(law.quantile(u, flow), inner.quantile(u, flow))
    t = law(flow, Drawn(1), 50)
    strata = (torch.arange(50, dtype=torch.float64) + Drawn(1).uniform(50)) / 50
    assert torch.equal(t, inner.times(flow, strata))
    assert law.learner is inner and StratifiedTime(law).learner is inner


def test_continuous_times_fill_the_trained_range():
    u = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    for schedule in (RectifiedFlow(), VarianceExploding()):
        t = UniformTime().times(schedule, u)
        expected = schedule.t_min + (schedule.t_max - schedule.t_min) * u
        assert torch.allclose(t, expected, rtol=1e-15)


def test_the_noisiest_time_lies_in_the_last_interval():
    schedule = RectifiedFlow()
    assert float(ImportanceTime(4).importance(schedule, torch.tensor([1.0]).double())) == 1


def test_objective_learns_in_training_only():
    law = ImportanceTime(10, 1)
    objective = Regression(law, ConstantWeight(), SquaredError())
    model = GaussianDiffusion(Linear(), LinearBetas(100), Eps()).double()
    loss_of(objective, model.eval(), images(), Drawn())
    assert not law.counts.any()
    loss_of(objective, model.train(), images(), Drawn())
    assert law.counts.sum() == 64


# ---------------------------------------------------------------- couplings


def test_optimal_transport_is_the_best_permutation():
    x0, eps = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(2)).double()
    paired = OptimalTransport()(x0, eps)
    best = min(
        float(((x0 - eps[list(order)]) ** 2).sum()) for order in itertools.permutations(range(6))
    )
    assert float(((x0 - paired) ** 2).sum()) == pytest.approx(best)
    assert torch.equal(Independent()(x0, eps), eps)


@given(st.integers(0, 1000))
def test_optimal_transport_permutes_within_classes(seed):
    generator = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 24, 3, generator=generator).double()
    label = torch.randint(0, 4, (24,), generator=generator)
    paired = OptimalTransport()(x0, eps, label)
    for k in range(4):
        mine, theirs = paired[label == k], eps[label == k]
        assert torch.equal(mine.sort(0).values, theirs.sort(0).values)
        assert ((x0[label == k] - mine) ** 2).sum() <= ((x0[label == k] - theirs) ** 2).sum() + 1e-9


def test_the_objective_pairs_by_its_coupling():
    """With the noise turned around, image k is noised by, and asked for, that of its partner."""

    class Reverse(Independent):
        def __call__(self, x0, eps, label=None):
            assert label.tolist() == list(range(8))
            return eps.flip(0)

    model, x0 = GaussianDiffusion(Linear(), LinearBetas(100), Eps()).double(), images(8)
    objective = Regression(UniformTime(), ConstantWeight(), SquaredError(), Reverse())
    seen = []
    model.denoiser.forward = lambda x, c_noise, label=None: seen.append(label) or 0.3 * x
    loss = loss_of(objective, model, x0, Drawn(1), label=torch.arange(8))
    assert seen[0].tolist() == list(range(8))
    noise = Drawn(1)
    level = model.schedule(UniformTime()(model.schedule, noise, 8))
    eps = noise.normal(x0).flip(0)
    raw = 0.3 * marginal(x0, eps, level)
    assert torch.allclose(loss, ((raw - eps) ** 2).flatten(1).mean(1))


# ---------------------------------------------------------------- the bound


def test_kl_of_normals_is_torchs():
    m, n = torch.randn(2, 50, dtype=torch.float64)
    v, w = torch.randn(2, 50, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(m, torch.exp(v / 2)), normal(n, torch.exp(w / 2))
    )
    assert torch.allclose(normal_kl(m, v, n, w), expected)


def test_grey_probabilities_add_up_to_one():
    greys = (torch.arange(256, dtype=torch.float64) * 2 / 255 - 1)[:, None]
    for mean, log_var in ((0.0, -1.0), (-0.9, -6.0), (1.2, 0.5)):
        p = grey_log_probability(
            greys, torch.full_like(greys, mean), torch.full_like(greys, log_var)
        ).exp()
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-9)
    inner = grey_log_probability(
        greys[128:129], greys[128:129], torch.full((1, 1), -2.0).double()
    ).exp()
    normal = torch.distributions.Normal(0.0, math.exp(-1.0))
    expected = 2 * float(normal.cdf(torch.tensor(BIN / 2))) - 1
    assert float(inner) == pytest.approx(expected, rel=1e-5)


@given(st.integers(2, 200), st.floats(0, 1))
def test_log_variance_lies_between_small_and_large(k, fraction):
    schedule = LinearBetas(200)
    s, t = schedule((k - 1) / 200), schedule(k / 200)
    value = float(log_variance(s, t, fraction, torch.zeros(1)))
    small, large = float(posterior(s, t)[2].log()), float(transition(s, t)[1].log())
    assert value == pytest.approx(fraction * large + (1 - fraction) * small, abs=1e-12)
    first = log_variance(schedule(0.0), schedule(1 / 200), fraction, torch.zeros(1))
    assert float(first) == pytest.approx(math.log(1e-4), abs=1e-9)


def test_a_term_of_the_bound_is_its_closed_form():
    """E of one term over data N(0, d^2) with the optimal denoiser (NUMERICS 5)."""
    d = 0.5
    data, schedule = GaussianData([0.0], [d]), LinearBetas(1000)
    s, t = schedule(0.299), schedule(0.3)
    x0 = d * torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0)).double()
    x_t = marginal(x0, torch.randn(400_000, 1, generator=torch.Generator().manual_seed(1)), t)
    _, c_0, small = posterior(s, t)
    mmse = d**2 * t.sigma**2 / (t.alpha**2 * d**2 + t.sigma**2)
    large = transition(s, t)[1]
    for fraction, variance in ((0.0, small), (1.0, large)):
        expected = 0.5 * (
            (variance / small).log() + small / variance - 1 + c_0**2 * mmse / variance
        )
        term = bound_term(x0, x_t, s, t, ask(data, x_t, t), fraction)
        error = 4 * float(term.std()) / 400_000**0.5
        assert float(term.mean()) == pytest.approx(float(expected), abs=error)
    best = math.log(float((small + c_0**2 * mmse) / small)) / math.log(float(large / small))
    optimal = bound_term(x0, x_t, s, t, ask(data, x_t, t), best).mean()
    for fraction in (best - 0.1, best + 0.1):
        assert bound_term(x0, x_t, s, t, ask(data, x_t, t), fraction).mean() > optimal


def test_the_whole_bound_is_the_entropy_at_the_optimal_variance():
    """Data N(0, d^2), T = 1000, continuous first term: bound - entropy < 1e-8 nats (NUMERICS 5).

    The optimal reverse variance is small + c_0^2 MMSE; terms in closed form through `normal_kl`.
    """
    d, schedule = 0.5, LinearBetas(1000)
    nodes = levels(schedule(torch.arange(1001, dtype=torch.float64) / 1000))
    one = torch.ones(1, dtype=torch.float64)
    total = 0.0
    for s, t in itertools.pairwise(nodes):
        mmse = d**2 * t.sigma**2 / (t.alpha**2 * d**2 + t.sigma**2)
        _, c_0, small = posterior(s, t)
        variance = small + c_0**2 * mmse
        if not s.sigma > 0:
            total += 0.5 * math.log(2 * math.pi * math.e * float(mmse))
            continue
        kl = normal_kl(0 * one, small.log() * one, 0 * one, variance.log() * one)
        total += float(kl + 0.5 * c_0**2 * mmse / variance)
    last = nodes[-1]
    spread = last.alpha**2 * d**2 + last.sigma**2
    total += 0.5 * float((last.alpha * d) ** 2 + last.sigma**2 - 1 - (last.sigma**2).log())
    entropy = 0.5 * math.log(2 * math.pi * math.e * d**2)
    mismatch = 0.5 * float(spread - 1 - spread.log())  # the prior is N(0, 1), not N(0, spread)
    assert total - mismatch == pytest.approx(entropy, abs=1e-8)
    assert entropy == pytest.approx(0.72579135, abs=1e-8)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 1.5)])
def test_prior_term_is_the_kl_to_a_normal(mean, std):
    x0 = torch.tensor([[0.5, -1.0]]).double()
    t = LinearBetas(300)(1.0)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(t.alpha * x0, t.sigma), normal(mean, std)
    ).mean()
    assert float(prior_term(x0, t, mean, std)) == pytest.approx(float(expected), rel=1e-6)
    assert float(prior_term(x0, ZeroTerminalSNR(10, LinearBetas)(1.0))) == 0


def test_the_first_term_is_minus_the_log_probability_of_the_grey_values():
    schedule = LinearBetas(1000)
    s, t = schedule(0.0), schedule(0.001)
    x0 = (torch.arange(100, 110, dtype=torch.float64) * BIN - 1)[None]
    x_t = t.alpha * x0
    term = bound_term(x0, x_t, s, t, Denoised(x0), 0.0)
    normal = torch.distributions.Normal(0.0, 0.01)  # beta_1 = 1e-4 stands for "small" there
    expected = -math.log(2 * float(normal.cdf(torch.tensor(BIN / 2))) - 1)
    assert float(term) == pytest.approx(expected, rel=1e-4) and expected > 1


def test_terms_of_a_batch_are_those_of_its_rows():
    schedule = CosineBetas(10)
    x0 = images(4).round().clamp(-1, 1)
    t = schedule(torch.tensor([0.1, 0.5, 0.9, 0.1]).double())
    s = schedule((t.t - 0.1).clamp_min(0))
    x_t = marginal(x0, images(4, seed=1), t)
    fraction = torch.rand(4, 1, 8, generator=torch.Generator().manual_seed(2)).double()
    answer = Denoised(0.9 * x0, None, fraction)
    whole = bound_term(x0, x_t, s, t, answer)
    for row, (s_row, t_row) in enumerate(zip(levels(s), levels(t), strict=True)):
        own = Denoised(answer.x0[row : row + 1], None, fraction[row : row + 1])
        alone = bound_term(x0[row : row + 1], x_t[row : row + 1], s_row, t_row, own)
        assert torch.allclose(whole[row], alone[0], atol=1e-12)


# ---------------------------------------------------------------- objectives


def test_learned_variance_is_trained_by_the_bound_and_the_mean_is_not():
    model = GaussianDiffusion(Linear(2), LinearBetas(100), Eps()).double()
    objective = simple(bound_weight=0.001)
    plain = simple()
    gradients = []
    for loss in (plain, objective):
        model.zero_grad()
        loss_of(loss, model, images(), Drawn(1)).mean().backward()
        gradients.append(model.denoiser.scale.grad.flatten().tolist())
    assert gradients[0][1] == 0 and gradients[1][1] != 0
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-12)


def test_hybrid_loss_is_the_sum_of_its_parts():
    model = GaussianDiffusion(Linear(2), LinearBetas(100), Eps()).double()
    parts = loss_of(simple(), model, images(), Drawn(1))
    bound = loss_of(
        VariationalBound(UniformTime(), variance_fraction=None), model, images(), Drawn(1)
    )
    hybrid = simple(bound_weight=0.25)
    assert torch.allclose(loss_of(hybrid, model, images(), Drawn(1)), parts + 0.25 * bound)


def test_bound_needs_steps_and_a_variance():
    with pytest.raises(ValueError, match="steps"):
        VariationalBound(UniformTime()).check(RectifiedFlow())
    VariationalBound(UniformTime()).check(LinearBetas(10))
    with pytest.raises(ValueError, match="must divide"):
        VariationalBound(ImportanceTime(7)).check(LinearBetas(100))
    model = GaussianDiffusion(Linear(), LinearBetas(100), Eps()).double()
    with pytest.raises(ValueError, match="learned_variance"):
        loss_of(VariationalBound(UniformTime(), None), model, images(), Drawn())


def test_bound_of_a_silent_network_is_its_closed_form():
    """x0-hat = 0 for eps = x_t / sigma: the terms are c_0^2 x0^2 / variance / 2 and the rest."""
    schedule = LinearBetas(50)
    x0 = images(4000, 2)
    law = UniformTime()
    net = GaussianDiffusion(Linear(), schedule, X0()).double()
    torch.nn.init.zeros_(net.denoiser.scale)
    bits = loss_of(VariationalBound(law, variance_fraction=1.0), net, x0, Drawn(3))
    t = law(schedule, Drawn(3), 4000)
    later = t > 1.5 / 50
    level, below = schedule(t[later]), schedule(t[later] - 1 / 50)
    _, c_0, small = posterior(below, level)
    large = transition(below, level)[1]
    square = x0[later].square().flatten(1).mean(1)
    expected = 0.5 * ((large / small).log() + small / large - 1 + c_0**2 * square / large)
    assert torch.allclose(bits[later], 50 * expected / math.log(2), rtol=1e-7)


def test_self_conditioning_trains_on_its_own_estimate():
    net = Linear(self_conditioning=True)
    model = GaussianDiffusion(net, LinearBetas(100), X0()).double()
    loss_of(simple(), model, images(400), Drawn(1))
    first, second = net.told
    assert not first.any() and not second.requires_grad
    told = second.flatten(1).any(1).double().mean()
    assert 0.42 < float(told) < 0.58
    for share in (0.0, 1.0):
        net.told.clear()
        objective = simple(estimate_share=share)
        bound = VariationalBound(UniformTime(), estimate_share=share)
        for one in (objective, bound):
            net.told.clear()
            loss_of(one, model, images(400), Drawn(1))
            assert float(net.told[1].flatten(1).any(1).double().mean()) == share


@pytest.mark.parametrize(
    "make",
    [
        lambda: EDM(0.0),
        lambda: EDMWeight(-1.0),
        lambda: P2(gamma=-1.0),
        lambda: P2(k=0.0),
        lambda: LogNormalSigma(std=0.0),
        lambda: ImportanceTime(bins=0),
        lambda: ImportanceTime(uniform=0.0),
        lambda: simple(bound_weight=-1.0),
        lambda: simple(estimate_share=2.0),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError, match="="):
        make()


def test_a_classifier_is_scored_by_its_cross_entropy():
    class Logits(nn.Module):
        denoises = False

        def forward(self, x, c_noise, label):
            return torch.stack([c_noise, x.sum(1)], 1)

    model = GaussianDiffusion(Logits(), RectifiedFlow(), Velocity())
    x0, label = torch.tensor([[0.5, -1.0], [2.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 1, 1])
    objective, batch = Classification(UniformTime()), Batch(x0, Condition(label))
    scores = objective.scores(model, batch, TrainContext(Drawn(3)))
    noise = Drawn(3)
    level = model.schedule(UniformTime()(model.schedule, noise, 3))
    x_t = marginal(x0, noise.normal(x0), level)
    a, b = model.schedule.conditioning(level).float(), x_t.sum(1)
    wanted = torch.logaddexp(a, b) - torch.where(label == 0, a, b)
    assert torch.allclose(scores["loss"], wanted, atol=1e-6)
    assert torch.equal(scores["accuracy"], ((b > a).long() == label).float())
    assert torch.equal(objective(model, batch, TrainContext(Drawn(3))), scores["loss"])
    with pytest.raises(ValueError, match="needs classes"):
        objective(model, Batch(x0), TrainContext(Drawn(3)))


def test_a_validation_tells_the_loss():
    objective, x0 = Regression(UniformTime(), ConstantWeight(), SquaredError()), torch.randn(5, 2)
    model, batch = GaussianDiffusion(Linear(), RectifiedFlow(), Velocity()), Batch(x0)
    scores = objective.scores(model, batch, TrainContext(Drawn(1)))
    assert list(scores) == ["loss"] and scores["loss"].shape == (5,)
    assert torch.equal(scores["loss"], objective(model, batch, TrainContext(Drawn(1))))

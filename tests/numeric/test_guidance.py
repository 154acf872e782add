"""Guidance and constraints: identities, closed forms and cost."""

import math

import pytest
import torch
from exact import Drawn, GaussianData, ask, run
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import eps_from, levels
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import Velocity
from diffusion_lab.diffusion.schedules import LinearBetas, RectifiedFlow
from diffusion_lab.diffusion.self_conditioning import SelfConditioned
from diffusion_lab.errors import ArgumentError
from diffusion_lab.sampling.ancestral import DDIM, DDPM
from diffusion_lab.sampling.constraints import DynamicThreshold, Inpaint
from diffusion_lab.sampling.guidance.classifier_free import (
    ClassifierFree,
    Extrapolate,
    Projected,
    Rescaled,
)
from diffusion_lab.sampling.guidance.second_model import AutoGuidance, ClassifierGuidance
from diffusion_lab.sampling.guidance.strength import Interval, PowerCosine
from diffusion_lab.sampling.pipeline import denoiser_of, final_state, trajectory
from diffusion_lab.sampling.sample_noise import slerp


class Net(torch.nn.Module):
    """A small conditional network that counts what it is asked."""

    num_classes = 10

    def __init__(self, seed=0, self_conditioning=False):
        super().__init__()
        torch.manual_seed(seed)
        self.self_conditioning = self_conditioning
        self.table = torch.nn.Embedding(11, 6)
        self.linear = torch.nn.Linear(6, 6)
        self.rows = []
        self.told = []

    def forward(self, x, c_noise, label=None, estimate=None):
        self.rows.append(len(x))
        self.told.append(estimate)
        label = torch.full((len(x),), 10) if label is None else label
        h = self.linear(x if estimate is None else x + 0.3 * estimate)
        return torch.tanh(h + self.table(label) * (c_noise / 1000)[:, None].to(x.dtype))


def model(**options):
    return GaussianDiffusion(Net(**options), RectifiedFlow(), Velocity()).double()


X = torch.linspace(-1, 1, 18, dtype=torch.float64).view(3, 6)
LABEL = torch.tensor([3, 1, 4])
NULL = torch.full((3,), 10)
LEVEL = RectifiedFlow()(0.7)


def ends(m, level=LEVEL):
    return ask(m, X, level, NULL).x0, ask(m, X, level, LABEL).x0


@pytest.mark.parametrize(
    "rule", [Extrapolate(), Rescaled(0.0), Projected(parallel=1.0)], ids=lambda r: type(r).__name__
)
@given(scale=st.floats(-4, 8))
def test_rules_without_their_twist_are_extrapolation(rule, scale):
    m = model()
    u, c = ends(m)
    guided = ask(ClassifierFree(scale, rule=rule)(m), X, LEVEL, LABEL).x0
    assert (guided - (u + scale * (c - u))).abs().max() < 1e-12


@pytest.mark.parametrize(
    "rule", [Extrapolate(), Rescaled(1.0), Projected()], ids=lambda r: type(r).__name__
)
def test_scale_one_is_the_conditional_bit_for_bit(rule):
    m = model()
    assert torch.equal(ask(ClassifierFree(1.0, rule=rule)(m), X, LEVEL, LABEL).x0, ends(m)[1])
    assert m.denoiser.rows == [3, 3, 3]


@given(st.floats(1.5, 8))
def test_rescaled_guidance_has_the_standard_deviation_of_the_conditional(scale):
    m = model()
    guided = ask(ClassifierFree(scale, rule=Rescaled(1.0))(m), X, LEVEL, LABEL).x0
    assert torch.allclose(guided.std(1), ends(m)[1].std(1), atol=1e-12)
    half = ask(ClassifierFree(scale, rule=Rescaled(0.5))(m), X, LEVEL, LABEL).x0
    plain = ask(ClassifierFree(scale)(m), X, LEVEL, LABEL).x0
    assert torch.allclose(half, 0.5 * (guided + plain), atol=1e-12)


def test_rescaled_guidance_of_an_even_image_is_finite():
    even = torch.zeros(1, 4).double()
    assert not Rescaled().fresh()(even, even, torch.tensor(2.0).double()).isnan().any()


@given(st.floats(1.5, 8), st.floats(0, 1))
def test_projected_guidance_moves_across_the_conditional_alone(scale, parallel):
    m = model()
    u, c = ends(m)
    guided = ask(ClassifierFree(scale, rule=Projected(parallel))(m), X, LEVEL, LABEL).x0
    along = ((guided - c) * c).sum(1) / (c * c).sum(1)
    whole = (scale - 1) * ((c - u) * c).sum(1) / (c * c).sum(1)
    assert torch.allclose(along, parallel * whole, atol=1e-10)


def test_further_conditions_follow_their_images():
    class Shifted(Net):
        def forward(self, x, c_noise, label=None, vector=None, image=None):
            return super().forward(x, c_noise, label) + vector + image.mean(1, keepdim=True)

    m = GaussianDiffusion(Shifted(), RectifiedFlow(), Velocity()).double()
    condition = Condition(LABEL, X[:, :1] * 5, X.flip(0) ** 2)
    whole = ClassifierFree(2.0)(m)(Query(X, LEVEL, given=condition)).x0
    null = m(Query(X, LEVEL, given=condition.null(10))).x0
    assert torch.allclose(null, ask(m, X, LEVEL, NULL, vector=0 * X, image=0 * X).x0)
    assert torch.allclose(whole, null + 2 * (m(Query(X, LEVEL, given=condition)).x0 - null))
    for k in range(3):
        one = slice(k, k + 1)
        alone = ClassifierFree(2.0)(m)(Query(X[one], LEVEL, given=condition.rows(one))).x0
        assert torch.allclose(whole[one], alone)
    handed_on = denoiser_of(m, ClassifierFree(2.0), condition)(Query(X, LEVEL)).x0
    assert torch.equal(handed_on, whole)


def test_the_constraint_on_estimates_comes_after_guidance():
    m = model()
    guided = ask(ClassifierFree(4.0)(m), X, LEVEL, LABEL).x0
    condition, clamp = Condition(LABEL), lambda x0, level: x0.clamp(-0.1, 0.2)
    seen = denoiser_of(m, ClassifierFree(4.0), condition, clamp)
    assert torch.equal(ask(seen, X, LEVEL).x0, guided.clamp(-0.1, 0.2))
    assert (guided.abs() > 0.2).any()


def test_one_call_goes_from_its_start_under_its_constraint():
    known = torch.tensor([1, 1, 0, 0, 0, 1])
    image = torch.linspace(0, 1, 6).double()
    request = {
        "shape": (6,), "num_samples": 3, "x": X, "start": 0.6, "given": Condition(LABEL),
        "constraint": Inpaint(image, known),
    }  # fmt: skip
    steps = list(trajectory(model(), DDIM(3), noise=Drawn(), **request))
    assert [float(step.t.t) for step in steps] == pytest.approx([0.6, 0.4, 0.2])
    assert torch.equal(steps[0].x_t, X)
    assert torch.equal(steps[-1].x[:, known > 0], image[known > 0].expand(3, 3))
    assert not torch.equal(steps[-1].x[:, known == 0], image[known == 0].expand(3, 3))
    assert torch.equal(
        final_state(trajectory(model(), DDIM(3), noise=Drawn(), **request)), steps[-1].x
    )


def test_a_rule_remembers_from_step_to_step_but_not_from_call_to_call():
    m = model()
    u, c = ends(m)
    guidance = ClassifierFree(2.0, rule=Projected(1.0, momentum=-0.5))
    for _ in range(2):
        guided = guidance(m)
        assert torch.allclose(ask(guided, X, LEVEL, LABEL).x0, c + (c - u))
        assert torch.allclose(ask(guided, X, LEVEL, LABEL).x0, c + 0.5 * (c - u))


def test_projected_guidance_shortens_and_remembers():
    u, c = torch.zeros(1, 2).double(), torch.tensor([[3.0, 4.0]]).double()
    one = torch.tensor(2.0).double()
    assert torch.allclose(Projected(1.0, radius=1.0).fresh()(u, c, one), c + c / 5)
    short = Projected(1.0, radius=100.0).fresh()(u, c, one)
    assert torch.allclose(short, Projected(1.0).fresh()(u, c, one))  # nothing is lengthened
    rule = Projected(1.0, momentum=-0.5).fresh()
    assert torch.allclose(rule(u, c, one), 2 * c)
    assert torch.allclose(rule(u, c, one), c + 0.5 * c)  # d - 0.5 d
    assert torch.allclose(rule(u, c, one), c + 0.75 * c)  # d - 0.5 (0.5 d)
    assert torch.allclose(Projected(1.0, momentum=-0.5).fresh()(u, c, one), 2 * c)


def test_interval_guides_inside_and_saves_calls_outside():
    m = model()
    denoise = ClassifierFree(3.0, strength=Interval(0.2, 0.6))(m)
    flow = RectifiedFlow()
    for t, rows in ((0.1, 3), (0.2, 3), (0.4, 6), (0.6, 6), (0.7, 3)):
        m.denoiser.rows.clear()
        level = flow(t)
        x0 = ask(denoise, X, level, LABEL).x0
        assert m.denoiser.rows == [rows]
        scale = 3.0 if rows == 6 else 1.0
        assert torch.equal(x0, ask(ClassifierFree(scale)(m), X, level, LABEL).x0)
    mixed = flow(torch.tensor([0.1, 0.4, 0.7]).double())
    x0 = ask(denoise, X, mixed, LABEL).x0
    for row in range(3):
        scale = 3.0 if row == 1 else 1.0
        expected = ask(ClassifierFree(scale)(m), X, mixed, LABEL).x0[row]
        assert torch.allclose(x0[row], expected, atol=1e-15)


def test_power_cosine_grows_from_nothing_to_all():
    flow = RectifiedFlow()
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    for power in (0.5, 1.0, 4.0):
        s = PowerCosine(power)(flow(t))
        assert s[0] == pytest.approx(1) and s[-1] == 0 and (s.diff() < 1e-15).all()
    assert float(PowerCosine(1.0)(flow(0.5))) == pytest.approx(0.5)
    assert float(PowerCosine(2.0)(flow(0.5))) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)


def test_composed_labels_add_and_subtract():
    m = model()
    u = ask(m, X, LEVEL, NULL).x0
    three, eight, four = (ask(m, X, LEVEL, torch.full((3,), k)).x0 for k in (3, 8, 4))
    denoise = ClassifierFree(2.5)(m)
    both = ask(denoise, X, LEVEL, torch.tensor([[3, 8]] * 3)).x0
    assert (both - (u + 2.5 * (three - u) + 2.5 * (eight - u))).abs().max() < 1e-12
    without = ask(denoise, X, LEVEL, torch.tensor([[3, ~4]] * 3)).x0
    assert (without - (u + 2.5 * (three - u) - 2.5 * (four - u))).abs().max() < 1e-12
    filled = ask(denoise, X, LEVEL, torch.tensor([[3, 10]] * 3)).x0
    assert (filled - ask(denoise, X, LEVEL, torch.tensor([3] * 3)).x0).abs().max() < 1e-12
    m.denoiser.rows.clear()
    ask(denoise, X, LEVEL, torch.tensor([[3, ~4]] * 3))
    assert m.denoiser.rows == [9]


def test_composed_labels_refuse_a_rule_that_does_not_know_them():
    denoise = ClassifierFree(2.0, rule=Projected())(model())
    with pytest.raises(ArgumentError, match="rule=Projected"):
        ask(denoise, X, LEVEL, torch.tensor([[3, ~4]] * 3))


@given(st.floats(-2, 4))
def test_autoguidance_is_affine_between_the_models(scale):
    strong, weak = model(), model(seed=5)
    guided = ask(AutoGuidance(lambda: weak, scale)(strong), X, LEVEL, LABEL).x0
    a, b = ask(strong, X, LEVEL, LABEL).x0, ask(weak, X, LEVEL, LABEL).x0
    assert (guided - (b + scale * (a - b))).abs().max() < 1e-12


def test_autoguidance_at_one_asks_the_weaker_model_nothing():
    strong, weak = model(), model(seed=5)
    guided = ask(AutoGuidance(lambda: weak, 1.0)(strong), X, LEVEL, LABEL).x0
    assert torch.equal(guided, ask(strong, X, LEVEL, LABEL).x0) and weak.denoiser.rows == []


class GaussianClassifier(torch.nn.Module):
    """p(label | x_t) by Bayes' rule for two Gaussian classes in one dimension."""

    means = (-1.0, 1.0)
    std = 0.5

    denoises = False

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, c_noise, label=None):
        t = c_noise.double() / (self.schedule.steps or 1000)
        level = self.schedule(t)
        variance = (level.alpha * self.std) ** 2 + level.sigma**2
        away = [x[:, 0] - level.alpha * mean for mean in self.means]
        return torch.stack([-0.5 * a**2 / variance for a in away], 1)


class MixtureNet(torch.nn.Module):
    """The exact velocity of the mixture of both classes, which it does not tell apart."""

    num_classes = None

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, c_noise, label=None):
        level = self.schedule(c_noise.double() / 1000)
        a, s = level.alpha[:, None], level.sigma[:, None]
        variance = (a * GaussianClassifier.std) ** 2 + s**2
        means = torch.tensor([GaussianClassifier.means], dtype=torch.float64)
        away = x - a * means
        share = torch.softmax(-0.5 * away**2 / variance, dim=1)
        each = means + a * GaussianClassifier.std**2 / variance * away
        x0 = (share * each).sum(1, keepdim=True)
        return (x - a * x0) / s - x0


def test_classifier_guidance_at_one_is_bayes_rule():
    """The mixture's estimate plus the classifier's gradient is the estimate of the class."""
    flow = RectifiedFlow()
    m = GaussianDiffusion(MixtureNet(flow), flow, Velocity())
    classifier = GaussianDiffusion(GaussianClassifier(flow), flow, Velocity())
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None]
    for label, mean in ((0, -1.0), (1, 1.0)):
        denoise = denoiser_of(
            m, ClassifierGuidance(lambda: classifier, 1.0), Condition(torch.full((40,), label))
        )
        for t in (0.2, 0.5, 0.9):
            level = flow(t)
            own = ask(GaussianData([mean], [GaussianClassifier.std]), x, level).x0
            assert (ask(denoise, x, level).x0 - own).abs().max() < 1e-6
        assert ask(denoise, x, flow(1.0)).x0.isfinite().all()
    condition = Condition(torch.ones(4000).long())
    out = run(
        DDIM(50), denoiser_of(m, ClassifierGuidance(lambda: classifier), condition), flow,
        torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)).double(),
    ).x  # fmt: skip
    assert float(out.mean()) == pytest.approx(1.0, abs=0.06)
    unguided = ClassifierGuidance(lambda: classifier, 0.0)(m)
    assert ask(unguided, x[:1], LEVEL, LABEL[:1]).x0.shape == (1, 1)


def test_a_second_model_of_the_wrong_kind_is_refused():
    flow = RectifiedFlow()
    classifier = GaussianDiffusion(GaussianClassifier(flow), flow, Velocity())
    m = model()
    with pytest.raises(ValueError, match="is no classifier"):
        ClassifierGuidance(lambda: m)(m)
    with pytest.raises(ValueError, match="denoises nothing"):
        AutoGuidance(lambda: classifier)(m)


class Scaled(RectifiedFlow):
    """A flow with another amplitude of the signal or of the noise, told the network alike."""

    def __init__(self, signal, noise):
        super().__init__()
        self.factors = signal, noise

    def alpha_sigma(self, t):
        return tuple(f * part for f, part in zip(self.factors, super().alpha_sigma(t), strict=True))


@pytest.mark.parametrize("schedule", [Scaled(1, 2), Scaled(0.5, 1), RectifiedFlow(shift=3.0)])
def test_a_second_model_of_another_schedule_is_refused(schedule):
    other = GaussianDiffusion(Net(), schedule, Velocity())
    with pytest.raises(ValueError, match=r"weak: .* another schedule"):
        AutoGuidance(lambda: other)(model())
    classifier = GaussianDiffusion(GaussianClassifier(schedule), schedule, Velocity())
    with pytest.raises(ValueError, match=r"classifier: .* another schedule"):
        ClassifierGuidance(lambda: classifier)(model())


def test_self_conditioning_tells_the_model_its_last_answer():
    m = model(self_conditioning=True)
    denoise = denoiser_of(m, ClassifierFree(2.0), Condition(LABEL))
    ask(denoise, X, LEVEL)
    ask(denoise, X, RectifiedFlow()(0.5))
    first, second = m.denoiser.told
    assert torch.equal(first, torch.zeros(6, 6).double())
    alone = model(self_conditioning=True)
    denoise = denoiser_of(alone, None, Condition(LABEL))
    answer = ask(denoise, X, LEVEL).x0
    ask(denoise, X, LEVEL)
    assert torch.equal(alone.denoiser.told[-1], answer)
    pair = torch.cat((X, X))
    labels = torch.cat((LABEL, NULL))
    assert torch.equal(second, ask(m, pair, LEVEL, labels, estimate=torch.zeros_like(pair)).x0)
    fresh = denoiser_of(m, ClassifierFree(2.0), Condition(LABEL))
    ask(fresh, X, LEVEL)
    assert not m.denoiser.told[-1].any()


def test_self_conditioning_follows_guidance_that_comes_and_goes():
    inner = model(self_conditioning=True)
    m = SelfConditioned(inner)
    first = ask(m, X, LEVEL, LABEL).x0
    pair, labels = torch.cat((X, X)), torch.cat((LABEL, NULL))
    both = ask(m, pair, LEVEL, labels).x0
    assert torch.equal(inner.denoiser.told[-1], torch.cat((first, first)))
    ask(m, X, LEVEL, LABEL)
    assert torch.equal(inner.denoiser.told[-1], both[:3])


def test_dynamic_threshold_is_imagens():
    x0 = torch.linspace(-4, 4, 101).double().repeat(2, 1)
    x0[1] /= 10
    out = DynamicThreshold(0.9)(x0, LEVEL)
    s = torch.quantile(x0[0].abs(), 0.9)
    assert torch.allclose(out[0], x0[0].clamp(-s, s) / s, atol=1e-6)
    assert torch.equal(out[1], x0[1])


def test_inpainting_keeps_the_known_part():
    image = torch.full((6,), 0.4, dtype=torch.float64)
    known = torch.tensor([1, 1, 0, 0, 0, 1])
    data = GaussianData([0.0] * 6, [1.0] * 6)
    schedule = LinearBetas(50)
    x = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(1)).double()
    steps = list(
        DDPM(50).trajectory(
            data,
            schedule,
            levels(schedule(DDPM(50).times(schedule))),
            x,
            Drawn(2),
            Inpaint(image, known),
        )
    )
    assert torch.equal(steps[-1].x[:, known > 0], image[:3].expand(20_000, 3))
    half = steps[25]
    a, s = float(half.s.alpha), float(half.s.sigma)
    painted = half.x[:, 0]
    assert float(painted.mean()) == pytest.approx(0.4 * a, abs=4 * s / 20_000**0.5)
    assert float(painted.std()) == pytest.approx(s, rel=0.03)


@given(st.floats(0, 1), st.integers(0, 1000))
def test_slerp_keeps_the_norm_of_equal_norms(weight, seed):
    a, b = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed)).double()
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    middle = slerp(a, b, weight)
    assert (middle.norm(dim=1) - 1).abs().max() < 1e-12
    angle = torch.acos((a * b).sum(1).clamp(-1, 1))
    assert torch.allclose(torch.acos((a * middle).sum(1).clamp(-1, 1)), weight * angle, atol=1e-6)
    assert torch.allclose(slerp(a, b, 0.0), a) and torch.allclose(slerp(a, b, 1.0), b)
    assert torch.allclose(slerp(a, a, weight), a)
    assert bool(slerp(torch.zeros_like(a), b, weight).isfinite().all())


def test_guidance_commutes_with_the_parameterization():
    """Guiding eps-hat and guiding x0-hat are one, as long as nothing is clipped."""
    m = model()
    u, c = ends(m)
    guided = ask(ClassifierFree(3.5)(m), X, LEVEL, LABEL).x0
    eps_u, eps_c = (eps_from(X, x0, LEVEL) for x0 in (u, c))
    assert (eps_from(X, guided, LEVEL) - (eps_u + 3.5 * (eps_c - eps_u))).abs().max() < 1e-12


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassifierFree(float("nan")),
        lambda: Interval(0.5, 0.5),
        lambda: Interval(-0.1, 0.5),
        lambda: PowerCosine(0.0),
        lambda: Rescaled(1.5),
        lambda: Projected(radius=0.0),
        lambda: Projected(momentum=1.0),
        lambda: ClassifierGuidance(lambda: None, -1.0),
        lambda: DynamicThreshold(0.0),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ArgumentError, match="="):
        make()


def test_a_denoised_without_further_answers_can_be_guided():
    def only_x0(query):
        return Denoised(query.x * (query.given.label[:, None] + 1.0))

    only_x0.num_classes = 10
    out = ask(ClassifierFree(2.0)(only_x0), X, LEVEL, LABEL)
    assert out.raw is None and out.variance_fraction is None

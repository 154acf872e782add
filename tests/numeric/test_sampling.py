import itertools
import weakref

import pytest
import torch
from exact import Constant, Drawn, GaussianData, MixtureData, ask, run
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.gaussian import levels, posterior, transition
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    CosineBetas,
    LinearBetas,
    RectifiedFlow,
)
from diffusion_lab.sampling.adaptive import Adaptive
from diffusion_lab.sampling.ancestral import DDIM, DDPM
from diffusion_lab.sampling.constraints import Clip, Inpaint
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.sampling.multistep import DPMSolver2S, DPMSolverMultistep, UniPC
from diffusion_lab.sampling.ode import RK4, AdamsBashforth, Heun, Straight
from diffusion_lab.sampling.pipeline import denoiser_of, evaluating, final_state, trajectory
from diffusion_lab.sampling.sample_noise import SampleNoise
from diffusion_lab.sampling.sampler import Here
from diffusion_lab.sampling.spacing import Leading, Linspace, Trailing, UniformLogSNR

GRIDS = [Trailing(), Leading(), Linspace(), UniformLogSNR()]
SCHEDULES = [LinearBetas(1000), CosineBetas(300), ContinuousCosine(), RectifiedFlow()]
DATA = GaussianData([1.0, -2.0, 0.5], [0.3, 1.0, 2.0])


def makers(steps):
    return [
        DDPM(steps),
        DDPM(steps, variance_fraction=1.0),
        DDIM(steps),
        DDIM(steps, eta=0.5),
        DDIM(steps, eta=1.0),
        Heun(steps),
        AdamsBashforth(steps),
    ]


class Net(torch.nn.Module):
    """A small conditional network with something to learn, for identities."""

    num_classes = 10

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(11, 6)
        self.linear = torch.nn.Linear(6, 6)
        self.calls, self.rows = 0, 0

    def forward(self, x, c_noise, label=None):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        label = torch.full((len(x),), 10) if label is None else label
        return torch.tanh(self.linear(x) + self.table(label) * (c_noise / 1000)[:, None])


def model(schedule=None):
    return GaussianDiffusion(Net(), schedule or RectifiedFlow(), Velocity())


@given(st.integers(1, 1000), st.data())
def test_grids_have_the_asked_count_and_fall(total, data):
    steps = data.draw(st.integers(1, total))
    for schedule in (LinearBetas(total), RectifiedFlow(), RectifiedFlow(total)):
        for grid in GRIDS:
            times = grid(schedule, steps)
            assert times.shape == (steps + 1,) and times.dtype == torch.float64
            assert times[-1] == 0 and (times.diff() < 0).all()
            assert times[0] <= 1
            if schedule.steps:
                nodes = times * total
                assert (nodes - nodes.round()).abs().max() < 1e-9


def test_grids_visit_the_published_steps():
    """NUMERICS 8: T = 300, S = 50, and T = 1000, S = 13, 0-based as the libraries print them."""

    def ends(grid, total, steps):
        times = (grid(LinearBetas(total), steps) * total).round().long() - 1
        return times[0].item(), times[-2].item()

    assert ends(Leading(), 300, 50) == (294, 0)
    assert ends(Trailing(), 300, 50) == (299, 5)
    assert ends(Linspace(), 300, 50) == (299, 0)
    assert ends(Leading(), 1000, 13) == (912, 0)
    assert ends(Trailing(), 1000, 13) == (999, 76)


def test_leading_steps_of_continuous_time_stop_one_step_below_the_start():
    schedule = RectifiedFlow()
    times = Leading()(schedule, 4, start=0.9)
    stride = (0.9 - schedule.t_min) / 4
    expected = [schedule.t_min + k * stride for k in (3, 2, 1, 0)]
    assert times.tolist() == pytest.approx([*expected, 0.0], abs=1e-15)


def test_log_snr_grid_is_even():
    times = UniformLogSNR()(ContinuousCosine(), 9, start=0.9)
    gaps = ContinuousCosine()(times[:-1]).log_snr.diff()
    assert torch.allclose(gaps, gaps[:1].expand(8), rtol=1e-6)


def test_a_sampler_begins_at_the_start_it_is_given():
    times = DDIM(3).times(RectifiedFlow(), 0.6)
    assert times.tolist() == pytest.approx([0.6, 0.4, 0.2, 0.0])


def test_images_of_other_seeds_and_numbers_have_other_noise():
    like = torch.zeros(4, 5)
    drawn = torch.cat([SampleNoise(seed, 0, 4).normal(like) for seed in range(4)])
    assert len({tuple(row.tolist()) for row in drawn}) == 16


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_bad_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps"):
        DDIM(steps)


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(ValueError, match="at most 100"):
        DDIM(101).check(LinearBetas(100))
    DDIM(100).check(LinearBetas(100))
    assert len(DDPM().times(LinearBetas(77))) == 78
    assert len(DDPM().times(RectifiedFlow())) == 1001


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_constant_denoiser_gives_that_constant(schedule, steps):
    for sampler in makers(steps):
        denoise = Constant(torch.tensor([0.25, -0.5, 1.0], dtype=torch.float64))
        last = run(sampler, denoise, schedule, torch.randn(4, 3).double())
        assert torch.equal(last.x, denoise.x0.expand(4, 3))
        expected = 2 * steps - 1 if isinstance(sampler, Heun) else steps
        assert denoise.calls == expected


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_eta_1_is_ddpm(schedule):
    x = torch.randn(8, 3, dtype=torch.float64)
    one = run(DDIM(40, eta=1.0), DATA, schedule, x, Drawn(5)).x
    two = run(DDPM(40), DATA, schedule, x, Drawn(5)).x
    assert (one - two).abs().max() < 1e-9


def propagate(sampler, schedule, data, eta):
    """Mean and variance of the sampler's output, in closed form: each step is linear in x."""
    times = sampler.times(schedule)
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    rows = schedule(times)
    for t, s in itertools.pairwise(levels(rows)):
        gain = data.gain(t)
        offset = data.mean * (1 - gain * t.alpha)  # x0-hat = gain x + offset
        if s.sigma == 0:
            mean, var = gain * mean + offset, gain**2 * var
            continue
        c2 = eta**2 * posterior(s, t)[2]
        k = (s.sigma**2 - c2).clamp_min(0).sqrt() / t.sigma
        slope = (s.alpha - k * t.alpha) * gain + k
        mean, var = slope * mean + (s.alpha - k * t.alpha) * offset, slope**2 * var + c2
    return mean, var


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", [LinearBetas(1000), CosineBetas(1000), ContinuousCosine()])
def test_moments_of_samples_match_closed_form(schedule, eta):
    count, sampler = 60_000, DDIM(25, eta=eta)
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    out = run(sampler, DATA, schedule, x, Drawn(8)).x
    mean, var = propagate(sampler, schedule, DATA, eta)
    z_mean = (out.mean(0) - mean) / (var / count).sqrt()
    z_var = (out.var(0) - var) / (var * (2 / count) ** 0.5)
    assert z_mean.abs().max() < 4 and z_var.abs().max() < 4


@pytest.mark.parametrize("schedule", [LinearBetas(300), LinearBetas(1000), CosineBetas(1000)])
def test_without_noise_ddpm_collapses_and_ddim_does_not(schedule):
    """On a Gaussian of std d each step's mean map has the slope Cov(x_s, x_t) / Var(x_t).

    That is r P_s / P_t with P = alpha^2 d^2 + sigma^2, and the product over all steps telescopes.
    """
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    top = schedule(torch.tensor(1.0, dtype=torch.float64))
    product = top.alpha * DATA.std**2 / (top.alpha**2 * DATA.std**2 + top.sigma**2)
    expected = DATA.mean + product * (x - top.alpha * DATA.mean)
    out = run(DDPM(noise_scale=0.0), DATA, schedule, x).x
    assert (out - expected).abs().max() < 1e-9
    assert (out.var(0) / DATA.std**2).max() < 0.16
    for sampler in (DDIM(), DDPM()):
        kept = run(sampler, DATA, schedule, x, Drawn(2)).x.var(0) / DATA.std**2
        assert (kept - 1).abs().max() < 0.15, (sampler, kept)


def test_noise_scale_is_a_factor_on_the_standard_deviation():
    schedule = LinearBetas(50)
    t, s = schedule(0.6), schedule(0.58)
    x = torch.randn(5, 3, dtype=torch.float64)
    full, half, none = (
        DDPM(noise_scale=scale).step(DATA, Here(x, t, [], schedule, Drawn(3)), s).x
        for scale in (1.0, 0.5, 0.0)
    )
    assert torch.allclose(half - none, 0.5 * (full - none), atol=1e-12)
    for scale in (-0.1, 1.5):
        with pytest.raises(ValueError, match="noise_scale="):
            DDPM(noise_scale=scale)


def test_fixed_large_adds_the_transition_variance():
    schedule = LinearBetas(50)
    t, s = schedule(0.6), schedule(0.58)
    x = torch.zeros(100_000, 1, dtype=torch.float64)
    denoise = Constant(torch.zeros(1).double())
    step = DDPM(variance_fraction=1.0).step(denoise, Here(x, t, [], schedule, Drawn()), s)
    _, v = transition(s, t)
    assert float(step.x.var()) == pytest.approx(float(v), rel=0.02)


@pytest.mark.parametrize(
    ("make", "order"), [(DDIM, 1), (Heun, 2), (AdamsBashforth, 2)], ids=["ddim", "heun", "ab2"]
)
def test_convergence_order_on_a_gaussian(make, order):
    """The exact flow of Gaussian data maps quantiles to quantiles."""
    schedule = LinearBetas(1000)
    t_end = 0.002
    data = GaussianData([0.4, -0.3, 0.1], [0.4, 0.8, 1.5])
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def std(level):
        return (level.alpha**2 * data.std**2 + level.sigma**2).sqrt()

    smooth = ContinuousCosine()
    start, end = smooth(0.98), smooth(t_end)
    exact = end.alpha * data.mean + std(end) / std(start) * (x - start.alpha * data.mean)
    errors = []
    for steps in (80, 160, 320):
        log_snr = torch.linspace(float(start.log_snr), float(end.log_snr), steps + 1).double()
        times = smooth.time_of(log_snr)
        out = run(make(), data, smooth, x, times=times).x
        errors.append(float((out - exact).square().mean().sqrt()))
    slope = torch.tensor(errors[-2] / errors[-1]).log2()
    assert abs(float(slope) - order) < 0.1, (errors, schedule)


def test_euler_is_the_straight_line_in_its_frame():
    schedule = RectifiedFlow()
    x = torch.randn(5, 3, dtype=torch.float64)
    t, s = schedule(0.8), schedule(0.5)
    c_t, tau_t = Straight()(t)
    c_s, tau_s = Straight()(s)
    x0 = ask(DATA, x, t).x0
    eps = (x - t.alpha * x0) / t.sigma
    expected = c_s * (x / c_t + (tau_s - tau_t) * (eps - x0))
    step = DDIM().step(DATA, Here(x, t, [], schedule, Drawn()), s)
    assert (step.x - expected).abs().max() < 1e-13


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_recovers_a_mixture(schedule):
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    data = MixtureData(means, 0.2)
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for sampler in makers(60):
        out = run(sampler, data, schedule, x, Drawn(4)).x
        nearest = torch.cdist(out, means.double())
        distance, which = nearest.min(1)
        assert (distance < 1.0).double().mean() > 0.99
        shares = torch.bincount(which, minlength=3) / 3000
        assert (shares - 1 / 3).abs().max() < 0.06, (sampler, shares)


def test_rising_times_are_forward_noise():
    schedule = RectifiedFlow()
    times = torch.tensor([0.5, 0.2, 0.6, 0.0], dtype=torch.float64)
    denoise = Constant(torch.zeros(2).double())
    steps = list(
        DDIM().trajectory(
            denoise, schedule, levels(schedule(times)), torch.randn(4, 2).double(), Drawn()
        )
    )
    assert [float(step.s.t) for step in steps] == [0.2, 0.0]
    assert float(steps[1].t.t) == 0.6


def test_guidance_ends_are_exact_and_cost_one_pass():
    m, label = model(), torch.tensor([3, 1, 4])
    x, level = torch.randn(3, 6), RectifiedFlow()(0.7)
    null = torch.full((3,), 10)
    for scale, condition, told in ((1.0, label, label), (0.0, label, null), (3.0, None, None)):
        guided = ask(ClassifierFree(scale)(m), x, level, condition).x0
        assert torch.equal(guided, ask(m, x, level, told).x0)
    for scale, rows in ((0.0, 3), (1.0, 3), (2.5, 6)):
        m.denoiser.calls = m.denoiser.rows = 0
        ask(ClassifierFree(scale)(m), x, level, label)
        assert (m.denoiser.calls, m.denoiser.rows) == (1, rows)


@given(st.floats(-3, 8))
def test_guidance_is_affine_in_the_scale(scale):
    m, label = model().double(), torch.tensor([3, 1, 4])
    x, level = torch.ones(3, 6).double(), RectifiedFlow()(torch.tensor([0.2, 0.5, 0.9]).double())
    u, c, g = (ask(ClassifierFree(s)(m), x, level, label).x0 for s in (0.0, 1.0, scale))
    assert (g - (u + scale * (c - u))).abs().max() < 1e-12


def test_guidance_of_an_unconditional_model_is_refused():
    m = model()
    m.num_classes = None
    with pytest.raises(ValueError, match="without classes"):
        ask(ClassifierFree(2.0)(m), torch.zeros(1, 6), RectifiedFlow()(0.7), torch.tensor([1]))


def test_constraint_acts_after_guidance():
    m = model()
    condition = Condition(torch.tensor([1, 2]))
    denoise = denoiser_of(m, ClassifierFree(5.0), condition, Clip(-0.1, 0.1))
    x0 = ask(denoise, torch.randn(2, 6), RectifiedFlow()(0.9)).x0
    assert x0.abs().max() <= 0.1
    with pytest.raises(ValueError, match="low"):
        Clip(1.0, -1.0)


@pytest.mark.parametrize("sampler", makers(6))
def test_image_k_depends_on_seed_and_k_alone(sampler):
    m, guidance = model(LinearBetas(100)), ClassifierFree(2.0)

    def drawn(seed=3, first=0, count=8):
        noise, given = (
            SampleNoise(seed, first, count),
            Condition(torch.arange(first, first + count)),
        )
        settings = {"shape": (6,), "num_samples": count, "guidance": guidance, "given": given}
        return final_state(trajectory(m, sampler, noise=noise, **settings))

    whole = drawn()
    assert torch.allclose(whole, torch.cat((drawn(3, 0, 3), drawn(3, 3, 5))), atol=1e-5)
    assert torch.equal(whole, drawn())
    assert (whole - drawn(seed=4)).abs().min() > 0


def test_trajectory_keeps_no_grad_to_itself():
    steps = trajectory(model(), DDIM(3), shape=(6,), num_samples=2, noise=SampleNoise(0, 0, 2))
    first = next(steps)
    assert torch.is_grad_enabled()
    assert not first.x.requires_grad
    with pytest.raises(ValueError, match="num_samples"):
        next(trajectory(model(), DDIM(3), shape=(6,), num_samples=0, noise=Drawn()))


def test_sample_noise():
    noise = SampleNoise(0, 5, 3)
    like = torch.empty(3, 2, 2)
    first, second = noise.normal(like), noise.normal(like)
    assert not torch.equal(first, second)
    assert torch.equal(SampleNoise(0, 6, 1).normal(like[:1])[0], first[1])
    assert torch.equal(SampleNoise(0, 5, 3).normal(like.double()), first.double())
    assert SampleNoise(0, 0, 4).uniform(4).shape == (4,)
    with pytest.raises(ValueError, match="noise of 3"):
        noise.normal(torch.empty(2, 2, 2))


@pytest.mark.parametrize("sampler", [*makers(6), DPMSolver2S(6), DPMSolverMultistep(6)])
def test_a_step_tells_what_was_asked_and_answered(sampler):
    flow, x = RectifiedFlow(), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for step in sampler.trajectory(
        DATA, flow, levels(flow(sampler.times(flow))), x.double(), Drawn()
    ):
        assert torch.equal(step.x0, ask(DATA, step.x_t, step.t).x0)


def test_every_argument_of_a_trajectory_counts():
    image = torch.linspace(-1, 1, 6)
    told = {"x": image.repeat(2, 1), "start": 0.7, "given": Condition(torch.tensor([1, 2]))}
    told |= {"guidance": ClassifierFree(2.0), "x0_constraint": Clip(-0.1, 0.1)}
    told["constraint"] = Inpaint(image, image > 0.5)

    def end():
        noise = SampleNoise(0, 0, 2)
        steps = list(trajectory(model(), DDIM(4), shape=(6,), num_samples=2, noise=noise, **told))
        assert torch.equal(final_state(iter(steps)), steps[-1].x)
        return steps[-1].x

    whole = end()
    for name in list(told):
        value = told.pop(name)
        assert not torch.equal(end(), whole), f"{name} does not matter"
        told[name] = value


@pytest.mark.parametrize(
    "made",
    [DDPM, DDIM, Heun, RK4, AdamsBashforth, DPMSolver2S, DPMSolverMultistep, UniPC, Adaptive],
)
def test_samplers_keep_their_steps_and_grid(made):
    sampler = made(4, grid := Leading())
    assert sampler.steps == 4 and sampler.grid is grid


def test_noise_is_of_as_many_images_as_are_asked_for():
    noise = SampleNoise(0, 0, 3)
    for draw in (lambda: noise.uniform(2), lambda: noise.normal(torch.zeros(2, 4))):
        with pytest.raises(ValueError, match="3 images was asked for 2"):
            draw()


@pytest.mark.parametrize("remembers", [False, True])
def test_further_conditions_reach_the_network(remembers):
    class Tinted(Net):
        self_conditioning = remembers

        def forward(self, x, c_noise, label=None, vector=0.0, estimate=None):
            return super().forward(x, c_noise, label) + vector

    m = GaussianDiffusion(Tinted(), RectifiedFlow(), Velocity())

    def drawn(given):
        noise = SampleNoise(0, 0, 2)
        return final_state(
            trajectory(m, DDIM(3), shape=(6,), num_samples=2, noise=noise, given=given)
        )

    tinted = drawn(Condition(vector=torch.ones(2, 6)))
    assert (tinted - drawn(Condition())).abs().min() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_in_eval_mode_for_a_while(training):
    m = torch.nn.Dropout().train(training)
    with evaluating(m):
        assert not m.training
    assert m.training is training
    with pytest.raises(KeyError), evaluating(m):
        raise KeyError
    assert m.training is training


class Ended:
    """A step of which its state alone matters."""

    def __init__(self, x):
        self.x = x


def test_the_end_of_a_trajectory_keeps_one_step_in_memory():
    alive, counts = weakref.WeakSet(), []

    def steps():
        for k in range(5):
            alive.add(step := Ended(k))
            yield step
            counts.append(len(alive))

    assert final_state(steps()) == 4
    assert counts == [1] * 5

"""Solvers of the probability flow ODE and their stochastic kin, beyond DDPM and DDIM."""

import itertools
import math

import pytest
import torch
from exact import Constant, Drawn, GaussianData, MixtureData, ask, run

from diffusion_lab.diffusion.gaussian import combine, eps_from, levels
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import EDM, X0, Eps, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    ContinuousVP,
    CosineBetas,
    LinearBetas,
    RectifiedFlow,
    SigmoidBetas,
    VarianceExploding,
    ZeroTerminalSNR,
)
from diffusion_lab.sampling.adaptive import Adaptive
from diffusion_lab.sampling.ancestral import DDIM, DDPM, DDIMInversion
from diffusion_lab.sampling.multistep import DPMSolver2S, DPMSolverMultistep, UniPC
from diffusion_lab.sampling.ode import RK4, VE, AdamsBashforth, Heun, Midpoint, Straight
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

DATA = GaussianData([0.4, -0.3, 0.1], [0.4, 0.8, 1.5])
SCHEDULES = [
    LinearBetas(1000),
    CosineBetas(1000),
    SigmoidBetas(1000),
    ZeroTerminalSNR(1000, LinearBetas),
    ContinuousCosine(),
    ContinuousCosine(shift=0.5),
    ContinuousVP(),
    RectifiedFlow(),
    RectifiedFlow(shift=2.0),
    VarianceExploding(sigma_max=30.0),
]
IDS = [
    "linear", "cosine", "sigmoid", "zero_terminal", "continuous_cosine", "shifted_cosine", "vp",
    "flow", "shifted_flow", "edm",
]  # fmt: skip


def normal(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def even_in_log_snr(schedule, start, end, steps):
    ends = schedule(torch.tensor([start, end], dtype=torch.float64)).log_snr
    grid = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
    return schedule.time_of(grid)


def exact_flow(data, start, end, x):
    """The flow of Gaussian data maps quantiles to quantiles."""

    def std(level):
        return (level.alpha**2 * data.std**2 + level.sigma**2).sqrt()

    away = x - start.alpha * data.mean
    return end.alpha * data.mean + std(end) / std(start) * away


ORDERS = [
    (DDIM(), 1),
    (Midpoint(), 3),  # on a Gaussian its h^3 errors cancel; see the mixture below
    (Midpoint(frame=VE()), 3),
    (Heun(), 2),
    (Heun(frame=VE()), 2),
    (RK4(), 4),
    (RK4(frame=VE()), 4),
    (AdamsBashforth(order=1), 1),
    (AdamsBashforth(order=2), 2),
    (AdamsBashforth(order=2, frame=VE()), 2),
    (AdamsBashforth(order=3), 3),
    (AdamsBashforth(order=4), 4),
    (DPMSolver2S(), 2),
    (DPMSolverMultistep(order=1), 1),
    (DPMSolverMultistep(order=2), 2),
    (DPMSolverMultistep(order=2, rule="heun"), 2),
    (DPMSolverMultistep(order=3), 3),
    (UniPC(order=1), 2),
    (UniPC(order=2), 3),
    (UniPC(order=2, variant="bh1"), 3),
    (Adaptive(rtol=1e9, atol=1e9), 3),  # takes every step that it tries
    (Adaptive(rtol=1e9, atol=1e9, frame=VE()), 3),
]


@pytest.mark.parametrize(("sampler", "order"), ORDERS)
def test_convergence_order_on_a_gaussian(sampler, order):
    """Multistep methods begin with exact states: their own first steps are of lower order."""
    schedule, (begin, stop) = ContinuousCosine(), (0.95, 0.15)
    x = normal(32, 3)
    exact = exact_flow(DATA, schedule(begin), schedule(stop), x)
    counts = (80, 160, 320) if order > 2 else (160, 320, 640)
    errors = []
    for steps in counts:
        times = even_in_log_snr(schedule, begin, stop, steps)
        nodes = levels(schedule(times))
        past = []
        for t, s in itertools.pairwise(nodes[: sampler.memory + 1]):
            x_t = exact_flow(DATA, nodes[0], t, x)
            past.append(Step(s, exact_flow(DATA, nodes[0], s, x), t, x_t, ask(DATA, x_t, t).x0))
        state = past[-1].x if past else x
        for t, s in itertools.pairwise(nodes[sampler.memory :]):
            usable = past[len(past) - sampler.memory :]
            past.append(sampler.step(DATA, Here(state, t, usable, schedule, Drawn()), s))
            state = past[-1].x
        errors.append(float((state - exact).square().mean().sqrt()))
    slope = math.log2(errors[-2] / errors[-1])
    assert abs(slope - order) < 0.1, (slope, errors)


@pytest.mark.parametrize("frame", [Straight(), VE()])
def test_midpoint_has_order_two_on_a_mixture(frame):
    schedule, data = ContinuousCosine(), MixtureData(torch.tensor([[-1.0], [1.0]]), 0.7)
    x = torch.linspace(-2, 2, 33, dtype=torch.float64)[:, None]

    def end(sampler, steps):
        return run(sampler, data, schedule, x, times=even_in_log_snr(schedule, 0.95, 0.15, steps)).x

    exact = end(RK4(), 1280)
    errors = [float((end(Midpoint(frame=frame), n) - exact).norm()) for n in (80, 160, 320)]
    assert abs(math.log2(errors[-2] / errors[-1]) - 2) < 0.1, errors


CALLS = [
    (DDPM(10), 10),
    (DDIM(10), 10),
    (Heun(10), 19),
    (Midpoint(10), 19),
    (RK4(10), 37),
    (AdamsBashforth(10, order=4), 10),
    (DPMSolver2S(10), 19),
    (DPMSolverMultistep(10), 10),
    (DPMSolverMultistep(10, order=3, eta=1.0), 10),
    (UniPC(10), 10),
    (DDIMInversion(10), 9),
]


@pytest.mark.parametrize(("sampler", "calls"), CALLS)
def test_network_calls_are_those_of_the_papers(sampler, calls):
    denoise = Constant(torch.zeros(2).double())
    run(sampler, denoise, LinearBetas(1000), normal(3, 2))
    assert denoise.calls == calls


def every_sampler(steps):
    return [
        DDPM(steps),
        DDIM(steps),
        DDIM(steps, eta=1.0),
        Heun(steps),
        Heun(steps, churn=10.0, churn_low=0.05, churn_high=10.0),
        Midpoint(steps),
        RK4(steps),
        AdamsBashforth(steps, order=3),
        DPMSolver2S(steps),
        DPMSolverMultistep(steps),
        DPMSolverMultistep(steps, eta=1.0),
        DPMSolverMultistep(steps, order=3, eta=1.0),
        UniPC(steps),
        UniPC(steps, order=3),
        Adaptive(rtol=1e-4, atol=1e-4),
    ]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_a_constant_estimate_is_returned_by_every_sampler(schedule):
    x0 = torch.tensor([0.3, -0.8], dtype=torch.float64)
    start = normal(4, 2) * schedule.prior_std(schedule(1.0))
    for sampler in every_sampler(7):
        out = run(sampler, Constant(x0), schedule, start).x
        assert (out - x0).abs().max() < 1e-12, sampler


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_every_sampler_recovers_a_mixture_on_every_schedule(schedule):
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    data = MixtureData(means, 0.25)
    start = normal(1500, 2, seed=3) * schedule.prior_std(schedule(1.0))
    karras = isinstance(schedule, VarianceExploding)
    for sampler in every_sampler(50):
        if karras and not isinstance(sampler, Adaptive):
            sampler.grid = Karras()
        out = run(sampler, data, schedule, start, Drawn(4)).x
        distance, which = torch.cdist(out, means.double()).min(1)
        assert (distance < 1.2).double().mean() > 0.99, sampler
        shares = torch.bincount(which, minlength=3) / 1500
        assert (shares - 1 / 3).abs().max() < 0.08, (sampler, shares)
        spread = (out - means.double()[which]).square().mean().sqrt()
        assert 0.17 < float(spread) < 0.33, (sampler, spread)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_ddim_is_euler_and_first_order_solvers(schedule):
    frames = [Straight(), VE()] if schedule(1.0).alpha > 0 else [Straight()]
    start = normal(5, 3)
    ddim = run(DDIM(12), DATA, schedule, start).x
    others = [DPMSolverMultistep(12, order=1)]
    others += [AdamsBashforth(12, frame=frame, order=1) for frame in frames]
    for other in others:
        assert (run(other, DATA, schedule, start).x - ddim).abs().max() < 1e-11


def test_ancestral_noise_agrees_between_families():
    """DPM-Solver++(1) with eta = 1 is DDIM(1) and DDPM with the small variance."""
    start, schedule = normal(5, 3), LinearBetas(300)
    ddpm = run(DDPM(20), DATA, schedule, start, Drawn(7)).x
    for other in (DDIM(20, eta=1.0), DPMSolverMultistep(20, order=1, eta=1.0)):
        assert (run(other, DATA, schedule, start, Drawn(7)).x - ddpm).abs().max() < 1e-11


def test_frames_are_inverse_to_their_levels():
    for frame in (Straight(), VE()):
        for schedule in SCHEDULES:
            t = torch.linspace(0.01, 0.95, 40, dtype=torch.float64)
            level = schedule(t)
            c, tau = frame(level)
            again = frame.level_at(schedule, tau)
            assert (again.t - t).abs().max() < 1e-8
            assert (tau.diff() > 0).all() and (c > 0).all()


def test_slopes_are_the_derivative_of_the_exact_flow():
    schedule = ContinuousCosine()
    x, t = normal(6, 3), schedule(0.5)
    for frame in (Straight(), VE()):
        slope = frame.slope(x, ask(DATA, x, t).x0, t)
        h = 1e-6
        c, tau = frame(t)
        above = frame.level_at(schedule, tau + h)
        c_above, _ = frame(above)
        z = x / c
        z_above = exact_flow(DATA, t, above, x) / c_above
        assert ((z_above - z) / h - slope).abs().max() < 1e-4


def test_the_ve_frame_is_refused_where_alpha_is_zero():
    with pytest.raises(ValueError, match="alpha = 0"):
        Heun(frame=VE()).check(RectifiedFlow())
    Heun(frame=VE()).check(LinearBetas(1000))


def test_churn_raises_the_noise_and_keeps_the_law():
    """A churned state is distributed as the data at the higher level."""
    schedule = VarianceExploding()
    sampler = Heun(10, frame=VE(), churn=3.0)
    t = schedule(schedule.time_of(-2 * torch.tensor(2.0).double().log()))
    x0 = DATA.mean + DATA.std * normal(200_000, 3, seed=1)
    x = x0 + float(t.sigma) * normal(200_000, 3, seed=2)
    here = Here(x, t, (), schedule, Drawn(3))
    raised, above, *_ = sampler.prepare(here)
    assert float(above.sigma) == pytest.approx(2.0 * (1 + 0.3), rel=1e-12)
    std = (DATA.std**2 + above.sigma**2).sqrt()
    assert ((raised.std(0) - std) / std).abs().max() < 0.01
    outside = Heun(10, frame=VE(), churn=3.0, churn_low=3.0)
    assert outside.prepare(here) is here
    most = Heun(10, frame=VE(), churn=100.0).prepare(here._replace(noise=Drawn(3))).t
    assert float(most.sigma) == pytest.approx(2.0 * math.sqrt(2), rel=1e-12)


def test_churn_never_leaves_the_schedule():
    schedule = LinearBetas(1000)
    denoise = Constant(torch.zeros(2).double())
    steps = list(
        Heun(5, frame=VE(), churn=50.0).trajectory(
            denoise, schedule, levels(schedule(Trailing()(schedule, 5))), normal(3, 2), Drawn()
        )
    )
    assert all(float(step.t.t) <= 1.0 for step in steps)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_adaptive_keeps_its_tolerance(schedule):
    start = schedule(1.0)
    x = normal(16, 3) * (start.alpha**2 * DATA.std**2 + start.sigma**2).sqrt()
    x = x + start.alpha * DATA.mean
    previous = None
    for tolerance in (1e-3, 1e-5):
        steps = list(
            Adaptive(rtol=tolerance, atol=tolerance).trajectory(
                DATA, schedule, levels(schedule(Adaptive().times(schedule))), x, Drawn()
            )
        )
        end = schedule(schedule.t_min)
        exact = exact_flow(DATA, start, end, x)
        error = float((steps[-2].x - exact).abs().max())
        assert error < 60 * tolerance * (1 + float(exact.abs().max()))
        assert previous is None or error < previous
        previous = error


def test_adaptive_takes_a_step_again_that_was_too_long():
    visited = []

    def denoise(query):
        visited.append(float(query.at.sigma))
        return DATA(query)

    run(Adaptive(rtol=1e-7, atol=1e-7), denoise, RectifiedFlow(), normal(1, 3))
    ends = visited[3::3]  # after the slope of the start, three calls a trial
    assert ends[1] > ends[0]  # the second trial is shorter
    assert sum(b > a for a, b in itertools.pairwise(ends)) < len(ends) / 4  # most are taken


def test_either_tolerance_alone_lets_all_steps_pass():
    for tolerances in ({"rtol": 1e9, "atol": 1e-9}, {"rtol": 1e-9, "atol": 1e9}):
        asked = []

        def denoise(query, asked=asked):
            asked.append(query)
            return DATA(query)

        run(Adaptive(**tolerances), denoise, RectifiedFlow(), normal(2, 3))
        assert len(asked) < 20


def test_adaptive_treats_both_signs_alike():
    def mirrored(query):
        return Denoised(-DATA(query._replace(x=-query.x)).x0)

    sampler, x = Adaptive(rtol=1e-2, atol=1e-5), normal(8, 3)
    there, back = (run(sampler, f, RectifiedFlow(), x) for f, x in ((DATA, x), (mirrored, -x)))
    assert torch.equal(there.x, -back.x)


def test_adaptive_visits_a_grid_that_ends_at_the_cleanest_time_once():
    times = Adaptive(4, Linspace()).times(RectifiedFlow())
    assert len(times) == 5 and bool((times.diff() < 0).all())
    assert Adaptive().times(RectifiedFlow()).tolist() == [1, RectifiedFlow().t_min, 0]


def test_adaptive_images_keep_their_own_clocks():
    schedule, x = RectifiedFlow(), normal(6, 3)
    whole = run(Adaptive(rtol=1e-4, atol=1e-4), DATA, schedule, x).x
    alone = torch.cat(
        [run(Adaptive(rtol=1e-4, atol=1e-4), DATA, schedule, x[k : k + 1]).x for k in range(6)]
    )
    assert (whole - alone).abs().max() < 1e-12


def test_adaptive_gives_up_in_words():
    with pytest.raises(RuntimeError, match="max_calls=10"):
        run(Adaptive(rtol=1e-9, atol=1e-9, max_calls=10), DATA, RectifiedFlow(), normal(2, 3))


@pytest.mark.parametrize("schedule", [LinearBetas(1000), ContinuousCosine()])
def test_inversion_error_falls_at_first_order(schedule):
    """Up and down again is off by O(1/S): 20 to 200 steps."""
    x = DATA.mean + DATA.std * normal(64, 3, seed=5)
    errors = []
    for steps in (50, 100, 200):
        up = run(DDIMInversion(steps), DATA, schedule, x)
        down = run(DDIM(steps), DATA, schedule, up.x)
        errors.append(float((down.x - x).square().mean().sqrt()))
    assert errors[0] > errors[1] > errors[2]
    assert 0.7 < math.log2(errors[1] / errors[2]) < 1.4, errors


def test_inversion_starts_from_the_image_and_ends_at_the_noisiest():
    schedule = LinearBetas(100)
    times = DDIMInversion(10).times(schedule)
    assert (times.diff() > 0).all() and times[-1] == 1 and times[0] == pytest.approx(0.1)
    steps = list(
        DDIMInversion(10).trajectory(DATA, schedule, levels(schedule(times)), normal(2, 3), Drawn())
    )
    assert len(steps) == 9 and float(steps[-1].s.t) == 1
    assert [float(step.t.t) for step in steps] == times[:-1].tolist()
    assert [float(step.s.t) for step in steps] == times[1:].tolist()


def test_ddim_inversion_undoes_a_single_step_of_a_constant_estimate():
    schedule, x = LinearBetas(100), normal(4, 2)
    denoise = Constant(torch.tensor([0.5, -0.5]).double())
    up = run(DDIMInversion(20), denoise, schedule, x).x
    times = DDIMInversion(20).times(schedule).flip(0)
    down = list(DDIM(20).trajectory(denoise, schedule, levels(schedule(times)), up, Drawn()))[-1].x
    assert (down - x).abs().max() < 1e-12


def test_karras_grid_is_its_formula():
    schedule = VarianceExploding()
    times = Karras()(schedule, 18)
    sigma = schedule(times).sigma[:-1]
    i = torch.arange(18, dtype=torch.float64) / 17
    expected = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert (sigma / expected - 1).abs().max() < 1e-12
    discrete = Karras()(LinearBetas(1000), 20)
    assert discrete[0] == 1 and (discrete.diff() < 0).all()
    flow = Karras()(RectifiedFlow(), 20)
    assert flow.shape == (21,) and flow[0] == 1 and (flow.diff() < 0).all()


def test_quadratic_grid_is_its_formula():
    times = Quadratic()(RectifiedFlow(), 5)
    k = torch.linspace(1, 0, 5).double() ** 2
    assert torch.allclose(times[:-1], 1e-3 + (1 - 1e-3) * k, atol=1e-15)
    nodes = Quadratic()(LinearBetas(1000), 11) * 1000
    assert nodes[0] == 1000 and nodes[-2] == 1 and (nodes - nodes.round()).abs().max() < 1e-9


def test_listed_grid_is_what_was_written():
    grid = Listed([1.0, 0.61, 0.2])
    assert grid(RectifiedFlow(), None).tolist() == [1.0, 0.61, 0.2, 0.0]
    assert grid(LinearBetas(10), 3).tolist() == pytest.approx([1.0, 0.6, 0.2, 0.0])
    assert grid(RectifiedFlow(), None, start=0.7).tolist() == [0.61, 0.2, 0.0]
    with pytest.raises(ValueError, match="steps=5"):
        grid(RectifiedFlow(), 5)
    for bad in ([], [0.0], [1.5]):
        with pytest.raises(ValueError, match="times="):
            Listed(bad)


def test_repaint_grid_walks_each_stretch_again():
    grid = RePaint(Trailing(), jump=2, repeats=2)
    times = (grid(LinearBetas(10), 5) * 10).round().int().tolist()
    assert times == [10, 8, 6, 10, 8, 6, 4, 2, 6, 4, 2, 0]
    plain = RePaint(Trailing(), jump=2, repeats=1)(LinearBetas(10), 5)
    assert torch.equal(plain, Trailing()(LinearBetas(10), 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Karras(sigma_min=0.5)(RectifiedFlow(), 4, start=0.1),
        lambda: UniformLogSNR(margin=0.9995)(RectifiedFlow(), 4),
        lambda: Linspace()(RectifiedFlow(), 3, start=0.0005),
        lambda: Leading()(RectifiedFlow(), 3, start=0.001),
    ],
)
def test_a_grid_that_could_not_fall_is_refused(make):
    with pytest.raises(ValueError, match=r"sigma_min|margin|start"):
        make()


def test_a_list_keeps_a_start_that_is_rounded():
    assert len(Listed([1.0, 0.1 + 0.2])(RectifiedFlow(), None, start=0.3)) == 2


def test_a_list_may_rise_and_be_longer_than_the_schedule():
    times = [1.0, 0.5, 0.75, 0.75, 0.5, 0.25]
    assert Listed(times)(RectifiedFlow(), None).tolist() == [1.0, 0.5, 0.75, 0.5, 0.25, 0.0]
    assert Listed(times)(LinearBetas(4), 6).tolist() == [1.0, 0.5, 0.75, 0.5, 0.25, 0.0]


def test_resampling_a_list_takes_its_number_of_steps():
    with pytest.raises(ValueError, match="must be null or 2"):
        RePaint(Listed([1.0, 0.5]))(LinearBetas(10), 3)


def test_repaint_takes_the_levels_of_a_list():
    times = RePaint(Listed([1.0, 0.8, 0.5, 0.2]), jump=2, repeats=2)(LinearBetas(1000), None)
    assert times.tolist() == pytest.approx([1, 0.8, 0.5, 1, 0.8, 0.5, 0.2, 0.5, 0.2, 0])


def test_repaint_keeps_the_law_of_the_data():
    """Going up by forward noise and down by DDPM changes nothing of what is sampled."""
    schedule = LinearBetas(100)
    x = normal(40_000, 3, seed=8)
    sampler = DDPM(100, RePaint(Linspace(), jump=10, repeats=3))
    out = run(sampler, DATA, schedule, x, Drawn(9)).x
    assert ((out.mean(0) - DATA.mean).abs() / DATA.std).max() < 0.05
    assert (out.std(0) / DATA.std - 1).abs().max() < 0.05


def test_dpm_solver_2s_from_pure_noise_begins_with_ddim():
    schedule, x = RectifiedFlow(), normal(4, 3)
    t, s = levels(schedule(torch.tensor([1.0, 0.8]).double()))
    ours = DPMSolver2S().step(DATA, Here(x, t, [], schedule, Drawn()), s).x
    x0 = ask(DATA, x, t).x0
    assert (ours - (s.alpha * x0 + s.sigma * eps_from(x, x0, t))).abs().max() < 1e-14


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdamsBashforth(order=5),
        lambda: DPMSolverMultistep(order=4),
        lambda: DPMSolverMultistep(eta=-1.0),
        lambda: DPMSolverMultistep(rule="best"),
        lambda: UniPC(order=0),
        lambda: UniPC(variant="bh3"),
        lambda: Heun(churn=-1.0),
        lambda: Heun(churn_low=2.0, churn_high=1.0),
        lambda: Adaptive(rtol=0.0),
        lambda: Adaptive(max_calls=1),
        lambda: Karras(rho=0.0),
        lambda: Karras(sigma_min=2.0, sigma_max=1.0),
        lambda: RePaint(jump=0),
        lambda: DDPM(variance_fraction=2.0),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError, match=r"=[-\d]|=best|=bh3"):
        make()


class Impulses:
    """Noise whose k-th drawing is 1 in row k + 2 and 0 in all others."""

    def __init__(self):
        self.count = 0

    def normal(self, like):
        out = torch.zeros_like(like)
        out[self.count + 2 : self.count + 3] = 1.0
        self.count += 1
        return out


def moments(sampler, schedule):
    """Mean and variance of the end of a sampler on Gaussian data, exactly.

    The end is affine in the starting noise and in each drawing, so that impulses tell all.
    """
    times = sampler.times(schedule)
    counted = Impulses()
    run(sampler, DATA, schedule, torch.zeros(1, 3, dtype=torch.float64), counted, times)
    x = torch.zeros(2 + counted.count, 3, dtype=torch.float64)
    x[1] = 1.0
    ends = run(sampler, DATA, schedule, x, Impulses(), times).x
    return ends[0], ((ends[1:] - ends[0]) ** 2).sum(0)


STOCHASTIC = [
    DDPM(), DDPM(variance_fraction=1.0), DDIM(eta=1.0), DDIM(eta=0.5),
    Heun(churn=5.0, churn_low=0.1, churn_high=20.0), DPMSolverMultistep(order=1, eta=1.0),
    DPMSolverMultistep(eta=1.0), DPMSolverMultistep(eta=0.5, rule="heun"),
    DPMSolverMultistep(order=3, eta=1.0),
]  # fmt: skip


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_exact_moments_of_stochastic_samplers_approach_those_of_the_data(sampler):
    """First order in the number of steps: half the error at twice as many."""
    schedule = ContinuousCosine()
    sampler.grid = UniformLogSNR()
    errors = []
    for steps in (100, 200, 400):
        sampler.steps = steps
        mean, variance = moments(sampler, schedule)
        spread = (variance.sqrt() / DATA.std - 1).abs().max()
        errors.append(float(spread + (mean - DATA.mean).abs().max()))
    assert errors[2] < 0.6 * errors[1] + 1e-3 and errors[2] < 0.04, errors


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_samples_have_the_moments_that_propagate_exactly(sampler):
    schedule, count = ContinuousCosine(shift=2.0), 100_000
    sampler.steps = 8
    mean, variance = moments(sampler, schedule)
    x = normal(count, 3, seed=11)
    out = run(sampler, DATA, schedule, x, Drawn(12)).x
    z_mean = (out.mean(0) - mean) / (variance / count).sqrt()
    z_variance = (out.var(0) / variance - 1) / math.sqrt(2 / count)
    assert z_mean.abs().max() < 4 and z_variance.abs().max() < 4


class Exact(torch.nn.Module):
    """The network that says F for the exact x0-hat, whatever F is asked for."""

    num_classes = None

    def __init__(self, data, schedule, target):
        super().__init__()
        self.data, self.schedule, self.target = data, schedule, target
        self.level = None

    def forward(self, x, c_noise, label=None):
        x0 = ask(self.data, x, self.level).x0
        a, b = self.target.weights(self.level)
        return combine((a, x0), (b, eps_from(x, x0, self.level)))


class Watched(GaussianDiffusion):
    """Lets its network know the level exactly; c_noise is float32."""

    def forward(self, query):
        self.denoiser.level = query.at
        return super().forward(query)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
@pytest.mark.parametrize(
    "target", [Eps(), X0(), V(), Velocity(), EDM(0.8)], ids=lambda t: type(t).__name__
)
def test_every_target_leads_every_sampler_to_the_same_end(target, schedule):
    """A mixture's samples from x0-hat itself, and from F by way of the parameterization."""
    if isinstance(target, Eps) and not schedule(1.0).alpha > 0:
        pytest.skip("refused when it is configured")
    data = MixtureData(torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]]), 0.25)
    model = Watched(Exact(data, schedule, target), schedule, target)
    # With eps-hat, x0-hat carries the rounding of eps times sigma / alpha
    largest = float(schedule(1.0).sigma / schedule(1.0).alpha) if isinstance(target, Eps) else 1.0
    start = normal(6, 2, seed=3) * schedule.prior_std(schedule(1.0))
    for sampler in every_sampler(9):
        ours = run(sampler, model, schedule, start, Drawn(4)).x
        exact = run(sampler, data, schedule, start, Drawn(4)).x
        assert (ours - exact).abs().max() < 1e-9 * max(1.0, largest), sampler

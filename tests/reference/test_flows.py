"""Agreement with flow_matching and torchcfm, whose t = 1 is data: their t is our 1 - t."""

import numpy as np
import pytest
import torch
from exact import ask, run
from libraries import DATA, largest, start, version

from diffusion_lab.diffusion.couplings import OptimalTransport
from diffusion_lab.diffusion.gaussian import combine, marginal
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import V, Velocity
from diffusion_lab.diffusion.schedules import ContinuousCosine, ContinuousVP, RectifiedFlow
from diffusion_lab.sampling.ancestral import DDIM
from diffusion_lab.sampling.ode import RK4, Heun, Midpoint

TIMES = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.97], dtype=torch.float64)
X0, EPS = start(5), start(5, seed=2)


def ours_on(schedule, parameterization):
    """Our state and target at `TIMES`."""
    level = schedule(TIMES)
    model = GaussianDiffusion(torch.nn.Identity(), schedule, parameterization)
    return marginal(X0, EPS, level), model.target(X0, EPS, level)


def test_flow_matching_path(compare):
    path = pytest.importorskip("flow_matching.path").CondOTProbPath()
    name = version("flow-matching")
    theirs = path.sample(EPS, X0, 1 - TIMES)
    x_t, target = ours_on(RectifiedFlow(), Velocity())
    difference = max(largest(x_t, theirs.x_t), largest(-target, theirs.dx_t))
    settings = "`CondOTProbPath.sample`: state, and velocity with its sign turned"
    compare("Rectified flow", name, settings, difference, 1e-10)
    model = GaussianDiffusion(torch.nn.Identity(), RectifiedFlow(), Velocity())
    model.denoiser.forward = lambda x, *_: torch.tanh(x)
    x0 = ask(model, x_t, RectifiedFlow()(TIMES)).x0
    expected = path.velocity_to_target(-torch.tanh(x_t), x_t, 1 - TIMES[:, None])
    settings = "`CondOTProbPath.velocity_to_target`"
    compare("Velocity to x0", name, settings, largest(x0, expected), 1e-10)


@pytest.mark.parametrize(
    ("name", "schedule"), [("VPScheduler", ContinuousVP()), ("CosineScheduler", ContinuousCosine())]
)
def test_flow_matching_schedules(compare, name, schedule):
    schedulers = pytest.importorskip("flow_matching.path.scheduler")
    theirs = getattr(schedulers, name)()
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    level, other = schedule(t), theirs(1 - t)
    difference = max(largest(level.alpha, other.alpha_t), largest(level.sigma, other.sigma_t))
    settings = f"`{name}`: alpha and sigma at 50 times"
    label = "VP-SDE schedule" if name.startswith("VP") else "Continuous cosine schedule"
    compare(label, version("flow-matching"), settings, difference, 1e-10)
    back = schedule.time_of(level.log_snr)
    difference = largest(back, 1 - theirs.snr_inverse(level.alpha / level.sigma))
    settings = f"`{name}.snr_inverse` of alpha / sigma"
    compare(f"{label}, inverse", version("flow-matching"), settings, difference, 1e-9)


def velocity(x, t, **_):
    """Theirs, at their time."""
    level = RectifiedFlow()(1 - float(t))
    x0 = ask(DATA, x, level).x0
    return (x0 - x) / level.sigma


@pytest.mark.parametrize(
    ("method", "sampler"), [("euler", DDIM), ("midpoint", Midpoint), ("heun2", Heun)]
)
def test_flow_matching_solvers(compare, method, sampler):
    pytest.importorskip("flow_matching.solver")
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    class Field(ModelWrapper):
        def forward(self, x, t, **extras):
            return velocity(x, t)

    times = torch.linspace(1, 0.02, 20, dtype=torch.float64)
    theirs = ODESolver(Field(None)).sample(
        start(), step_size=None, method=method, time_grid=1 - times
    )
    ours = run(sampler(19), DATA, RectifiedFlow(), start(), times=times).x
    label = "Euler (DDIM)" if method == "euler" else sampler.__name__
    settings = f"`ODESolver(method='{method}')`, 19 steps from t = 1 to 0.02"
    name = version("flow-matching")
    compare(f"Flow, {label}", name, settings, largest(ours, theirs), 1e-10)


def test_rk4(compare):
    common = pytest.importorskip("torchdiffeq._impl.rk_common")
    times = torch.linspace(1, 0.02, 20, dtype=torch.float64)
    x = start()
    for a, b in zip(1 - times[:-1], 1 - times[1:], strict=True):
        step = common.rk4_step_func(lambda t, y, **_: velocity(y, t), a, b - a, b, x)
        x = x + step
    ours = run(RK4(19), DATA, RectifiedFlow(), start(), times=times).x
    settings = "`rk4_step_func` (`method='rk4'` is another, the 3/8 rule), 19 steps"
    compare("Flow, RK4", version("torchdiffeq"), settings, largest(ours, x), 1e-10)


def test_torchcfm_paths(compare):
    torchcfm = pytest.importorskip("torchcfm", exc_type=ImportError)
    name = version("torchcfm")
    matcher = torchcfm.ConditionalFlowMatcher(sigma=0.0)
    _, x_t, flow = matcher.sample_location_and_conditional_flow(EPS, X0, 1 - TIMES)
    ours, target = ours_on(RectifiedFlow(), Velocity())
    difference = max(largest(ours, x_t), largest(-target, flow))
    settings = "`ConditionalFlowMatcher(0)`: state, and velocity with its sign turned"
    compare("Rectified flow", name, settings, difference, 1e-10)
    matcher = torchcfm.VariancePreservingConditionalFlowMatcher(sigma=0.0)
    _, x_t, flow = matcher.sample_location_and_conditional_flow(EPS, X0, 1 - TIMES)
    ours, target = ours_on(ContinuousCosine(), V())
    difference = max(largest(ours, x_t), largest(combine((-np.pi / 2, target)), flow))
    settings = "`VariancePreservingConditionalFlowMatcher(0)`: state, and velocity = -pi/2 v"
    compare("Continuous cosine schedule, v", name, settings, difference, 1e-10)


def pairs(rows=60):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, rows, 1, 2, 3, generator=generator, dtype=torch.float64)


def cost(x0, eps):
    return float(((x0 - eps) ** 2).sum())


def test_optimal_transport_plan(compare):
    """The plan's cost, since equal costs need not mean equal plans."""
    x0, eps = pairs()
    ours = cost(x0, OptimalTransport()(x0, eps))
    transport = pytest.importorskip("torchcfm.optimal_transport", exc_type=ImportError)
    plan = torch.as_tensor(transport.OTPlanSampler(method="exact").get_map(x0, eps))
    squares = torch.cdist(x0.flatten(1), eps.flatten(1)) ** 2
    theirs = float((plan * squares).sum()) * len(x0)
    settings = "`OTPlanSampler('exact')`, total squared distance of 60 pairs; relative"
    compare("Optimal transport", version("torchcfm"), settings, abs(ours / theirs - 1), 1e-10)


def test_optimal_transport_of_classes(compare):
    ot = pytest.importorskip("ot")
    x0, eps = pairs()
    label = torch.arange(60) % 3
    ours = OptimalTransport()(x0, eps, label)
    difference = 0.0
    for k in range(3):
        own = label == k
        squares = torch.cdist(x0[own].flatten(1), eps[own].flatten(1)).numpy() ** 2
        even = np.full(len(squares), 1 / len(squares))
        theirs = ot.emd2(even, even, squares) * len(squares)
        difference = max(difference, abs(cost(x0[own], ours[own]) / theirs - 1))
    settings = "`ot.emd2`, total squared distance within each of 3 classes; relative"
    compare("Optimal transport", version("pot"), settings, difference, 1e-10)

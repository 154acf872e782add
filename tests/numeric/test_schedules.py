import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lab.diffusion.gaussian import Level, posterior, transition
from diffusion_lab.diffusion.schedules import (
    BetaTable,
    ContinuousCosine,
    CosineBetas,
    LinearBetas,
    QuadraticBetas,
    RectifiedFlow,
)

TABLES = st.one_of(
    *(
        st.builds(
            betas,
            st.integers(1, 1500),
            beta_start=st.floats(1e-6, 1e-2),
            beta_end=st.floats(1e-2, 0.5),
        )
        for betas in (LinearBetas, QuadraticBetas)
    ),
    st.builds(CosineBetas, st.integers(1, 1500), offset=st.floats(0, 0.05)),
)
SCHEDULES = st.one_of(
    TABLES,
    st.builds(ContinuousCosine, st.one_of(st.none(), st.integers(1, 1500))),
    st.builds(RectifiedFlow, st.one_of(st.none(), st.integers(1, 1500)), shift=st.floats(0.2, 5.0)),
)


@given(SCHEDULES)
def test_snr_falls_and_amplitudes_stay_in_range(schedule):
    level = schedule(torch.linspace(0, 1, 401, dtype=torch.float64))
    assert level.alpha.dtype == torch.float64
    assert level.alpha[0] == 1 and level.sigma[0] == 0
    assert (level.alpha >= 0).all() and (level.sigma[1:] > 0).all()
    ratio = level.alpha / (level.alpha + level.sigma)
    resolved = ratio[1:] > 1e-7  # below, the angle is within rounding of pi/2
    assert (ratio.diff()[resolved] < 0).all() and (ratio.diff() < 1e-14).all()


@given(st.one_of(TABLES, st.builds(ContinuousCosine)))
def test_variance_preserving(schedule):
    level = schedule(torch.linspace(0, 1, 333, dtype=torch.float64))
    assert (level.alpha**2 + level.sigma**2 - 1).abs().max() < 1e-14


@given(SCHEDULES)
def test_time_of_inverts_log_snr(schedule):
    t = torch.linspace(0.001, 0.999, 97, dtype=torch.float64)
    level = schedule(t)
    resolved = level.alpha > 1e-7  # below, the angle is within rounding of pi/2
    assert (schedule.time_of(level.log_snr) - t)[resolved].abs().max() < 1e-6
    assert schedule.time_of(schedule(0.0).log_snr) == 0
    end = schedule(1.0)
    if end.alpha == 0 or end.alpha > 1e-7:
        assert schedule.time_of(end.log_snr) == pytest.approx(1.0, abs=1e-9)


@given(TABLES)
def test_steps_of_a_table_compose_to_the_closed_form(schedule):
    """q(x_t | x_{t-1}) applied t times is q(x_t | x_0): means multiply, variances accumulate."""
    nodes = schedule(torch.arange(schedule.steps + 1, dtype=torch.float64) / schedule.steps)
    s = Level(*(part[:-1] for part in nodes))
    t = Level(*(part[1:] for part in nodes))
    r, v = transition(s, t)
    assert ((v > 0) & (v < 1)).all()
    signal, variance = 1.0, 0.0
    for k in range(schedule.steps):
        signal, variance = signal * float(r[k]), variance * float(r[k]) ** 2 + float(v[k])
    assert signal == pytest.approx(float(nodes.alpha[-1]), rel=1e-9)
    assert variance == pytest.approx(float(nodes.sigma[-1]) ** 2, rel=1e-9)


@given(TABLES)
def test_transition_variance_is_beta_and_posterior_is_ho_eq_7(schedule):
    nodes = schedule(torch.arange(schedule.steps + 1, dtype=torch.float64) / schedule.steps)
    s, t = (
        Level(*(part[:-1] for part in nodes)),
        Level(*(part[1:] for part in nodes)),
    )
    _, v = transition(s, t)
    abar, abar_previous = t.alpha**2, s.alpha**2
    beta = 1 - abar / abar_previous
    assert (v - beta).abs().max() < 1e-12
    c_t, c_0, variance = posterior(s, t)
    expected_0 = abar_previous.sqrt() * beta / (1 - abar)
    expected_t = (1 - beta).sqrt() * (1 - abar_previous) / (1 - abar)
    assert (c_0 - expected_0).abs().max() < 1e-8
    assert (c_t - expected_t).abs().max() < 1e-8
    assert (variance - beta * (1 - abar_previous) / (1 - abar)).abs().max() < 1e-8
    assert variance[0] == 0
    assert (variance <= v + 1e-15).all()


def test_known_values():
    linear = LinearBetas(1000)
    assert float(linear.alpha_bar[-1]) == pytest.approx(4.036e-5, rel=1e-3)
    assert float(LinearBetas(300).alpha_bar[-1]) == pytest.approx(0.04806, rel=1e-3)
    cosine = CosineBetas(1000)
    assert float(cosine.alpha_bar[-1]) == pytest.approx(2.4288e-9, rel=1e-4)
    assert 1 / math.sqrt(cosine.alpha_bar[-1]) == pytest.approx(20291, rel=1e-4)
    betas = 1 - cosine.alpha_bar / torch.cat((torch.ones(1).double(), cosine.alpha_bar[:-1]))
    assert float(betas[0]) == pytest.approx(4.128e-5, rel=1e-3)
    assert int((betas > 0.9989).sum()) == 1


def test_roots_of_quadratic_betas_are_linear():
    abar = torch.cat((torch.ones(1).double(), QuadraticBetas(7, 0.01, 0.09).alpha_bar))
    roots = (1 - abar[1:] / abar[:-1]).sqrt()
    torch.testing.assert_close(roots, torch.linspace(0.1, 0.3, 7).double(), rtol=0, atol=1e-7)


def test_scaled_linear_ends_in_the_same_noise_for_every_length():
    ends = [float(LinearBetas(n, scaled=True)(1.0).alpha) for n in (100, 300, 1000, 4000)]
    assert max(ends) < 2 * min(ends) < 0.02
    assert float(LinearBetas(1000, scaled=True)(0.37).alpha) == float(LinearBetas(1000)(0.37).alpha)


def test_exact_ends():
    for schedule in (ContinuousCosine(), RectifiedFlow(), RectifiedFlow(shift=3.0)):
        end = schedule(1.0)
        assert end.alpha == 0 and end.sigma == 1


def test_between_nodes_the_angle_is_linear():
    schedule = LinearBetas(10)
    low, mid, high = (schedule(torch.tensor(t)) for t in (0.3, 0.35, 0.4))
    angles = [torch.atan2(level.sigma, level.alpha) for level in (low, mid, high)]
    assert float(angles[1]) == pytest.approx(float(angles[0] + angles[2]) / 2, abs=1e-7)


@given(SCHEDULES, st.floats(0, 1))
def test_snap_is_a_trained_time_and_idempotent(schedule, t):
    snapped = schedule.snap(torch.tensor(t, dtype=torch.float64))
    assert schedule.t_min <= snapped <= schedule.t_max
    assert schedule.snap(snapped) == snapped
    if schedule.steps:
        k = float(snapped * schedule.steps)
        assert abs(k - round(k)) < 1e-9


def test_shift_matches_its_definition():
    u = RectifiedFlow(shift=3.0)(0.5).sigma
    assert float(u) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


def test_conditioning():
    assert float(LinearBetas(300).conditioning(LinearBetas(300)(0.5))) == 150
    assert float(RectifiedFlow().conditioning(RectifiedFlow()(0.5))) == 500


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearBetas(0),
        lambda: LinearBetas(None),
        lambda: CosineBetas(-3),
        lambda: LinearBetas(10, beta_start=0.5, beta_end=0.1),
        lambda: LinearBetas(10, beta_end=2.0),
        lambda: LinearBetas(5, scaled=True),
        lambda: CosineBetas(10, offset=-1),
        lambda: CosineBetas(10, max_beta=1.5),
        lambda: RectifiedFlow(shift=0),
        lambda: RectifiedFlow(steps=2.5),
        lambda: BetaTable(torch.tensor([0.1, 1.2])),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError, match=r"steps|beta|offset|shift"):
        make()

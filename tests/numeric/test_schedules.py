import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lab.diffusion.gaussian import Level, posterior, transition
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
    st.builds(
        SigmoidBetas,
        st.integers(1, 1500),
        start=st.floats(-4, 0),
        end=st.floats(0.5, 4),
        temperature=st.floats(0.5, 1.5),
    ),
)
ZERO_TERMINAL = st.builds(
    ZeroTerminalSNR, st.integers(2, 1500), st.sampled_from([LinearBetas, CosineBetas])
)
STEPS = st.one_of(st.none(), st.integers(1, 1500))
SCHEDULES = st.one_of(
    TABLES,
    ZERO_TERMINAL,
    st.builds(ContinuousCosine, STEPS, shift=st.floats(0.2, 5.0)),
    st.builds(ContinuousVP, STEPS, st.floats(0.01, 1.0), st.floats(1.0, 30.0)),
    st.builds(RectifiedFlow, STEPS, shift=st.floats(0.2, 5.0)),
    st.builds(VarianceExploding, STEPS, st.floats(1e-4, 1e-2), st.floats(1.0, 200.0)),
)
PRESERVING = st.one_of(
    TABLES,
    ZERO_TERMINAL,
    st.builds(ContinuousCosine, shift=st.floats(0.2, 5.0)),
    st.builds(ContinuousVP, st.none(), st.floats(0.01, 1.0), st.floats(1.0, 30.0)),
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


@given(PRESERVING)
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
        lambda: BetaTable([]),
        lambda: SigmoidBetas(10, start=1.0, end=0.0),
        lambda: SigmoidBetas(10, temperature=0.0),
        lambda: ZeroTerminalSNR(1, LinearBetas),
        lambda: ContinuousVP(beta_min=0.0),
        lambda: ContinuousCosine(shift=-1.0),
        lambda: VarianceExploding(sigma_min=1.0, sigma_max=0.5),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError, match=r"steps|beta|offset|shift|start|temperature|sigma"):
        make()


@pytest.mark.parametrize(("start", "end", "temperature"), [(-3.0, 3.0, 1.0), (-2.0, 3.0, 0.7)])
def test_sigmoid_is_jabris_formula(start, end, temperature):
    """alpha_bar(t) = (S(end) - S(start + (end - start) t)) / (S(end) - S(start)) at the nodes."""
    schedule = SigmoidBetas(100, start, end, temperature)
    t = torch.arange(1, 101, dtype=torch.float64) / 100
    low, high = (
        torch.sigmoid(torch.tensor(v / temperature, dtype=torch.float64)) for v in (start, end)
    )
    expected = (high - torch.sigmoid((start + (end - start) * t) / temperature)) / (high - low)
    assert (schedule.alpha_bar[:-1] - expected[:-1]).abs().max() < 1e-12
    assert float(schedule.alpha_bar[-1]) == pytest.approx(0.001 * float(expected[-2]), rel=1e-9)


@given(st.integers(2, 1500), st.sampled_from([LinearBetas, CosineBetas, QuadraticBetas]))
def test_zero_terminal_is_lins_algorithm(steps, base):
    """sqrt(alpha_bar) keeps its first value, ends at exactly 0, and is affine in the old one."""
    before, after = base(steps).alpha_bar.sqrt(), ZeroTerminalSNR(steps, base).alpha_bar.sqrt()
    assert after[-1] == 0
    assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-12)
    expected = (before - before[-1]) * before[0] / (before[0] - before[-1])
    assert (after - expected).abs().max() < 1e-12
    end = ZeroTerminalSNR(steps, base)(1.0)
    assert end.alpha == 0 and end.sigma == 1


@given(st.floats(0.01, 1.0), st.floats(1.0, 30.0), st.floats(0.001, 1.0))
def test_vp_solves_its_equation(low, high, t):
    """d ln alpha / dt = -beta(t) / 2, by a central difference; and its discrete sibling."""
    schedule, h = ContinuousVP(None, low, high), 1e-5
    above, below = schedule(min(t + h, 1.0)), schedule(t - h)
    slope = (above.alpha.log() - below.alpha.log()) / (above.t - below.t)
    middle = float(above.t + below.t) / 2
    assert float(slope) == pytest.approx(-0.5 * (low + (high - low) * middle), rel=1e-5)


def test_vp_is_the_limit_of_linear_betas():
    table, smooth = LinearBetas(20_000, 0.1 / 20_000, 20 / 20_000), ContinuousVP()
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    assert (table(t).alpha - smooth(t).alpha).abs().max() < 1e-3


@given(st.floats(0.1, 5.0), st.floats(0.01, 0.99))
def test_shifted_cosine_moves_log_snr_by_twice_the_log_of_the_shift(shift, t):
    plain, shifted = ContinuousCosine()(t).log_snr, ContinuousCosine(shift=shift)(t).log_snr
    assert float(shifted - plain) == pytest.approx(-2 * math.log(shift), abs=1e-9)


def test_edm_levels():
    schedule = VarianceExploding(sigma_min=0.01, sigma_max=50.0)
    level = schedule(0.3)
    assert level.alpha == 1 and float(level.sigma) == pytest.approx(15.0)
    assert float(schedule.conditioning(level)) == pytest.approx(math.log(15.0) / 4)
    assert schedule.t_min == pytest.approx(0.01 / 50)
    assert float(schedule.prior_std(schedule(1.0))) == 50.0
    assert VarianceExploding(10).t_min == 0.1


def test_a_flow_is_not_preserving_and_starts_with_its_sigma():
    flow = RectifiedFlow()
    assert not bool(flow.preserving(flow(0.5))) and float(flow.prior_std(flow(0.5))) == 0.5


@pytest.mark.parametrize("schedule", [ContinuousVP(), VarianceExploding(), LinearBetas(100)])
def test_noise_beyond_the_end_is_at_the_end(schedule):
    assert float(schedule.time_of(schedule(1.0).log_snr - 3)) == 1


def test_explicit_betas_are_their_own_table():
    schedule = BetaTable([0.1, 0.2, 0.5])
    assert torch.allclose(schedule.alpha_bar, torch.tensor([0.9, 0.72, 0.36]).double())
    with pytest.raises(ValueError, match="number of betas"):
        BetaTable([0.1, 0.2], steps=3)

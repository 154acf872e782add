"""A flow map: a network of two times, asked by samplers that say where they go.

On Gaussian data the flow from t to s maps quantiles to quantiles, so the average velocity between
any two times is known: what MeanFlow (arXiv 2505.13447) trains.
"""

import itertools

import pytest
import torch
from exact import Drawn, GaussianData
from torch.func import jvp

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.objectives import Batch, Objective, TrainContext
from diffusion_lab.diffusion.parameterizations import Velocity
from diffusion_lab.diffusion.schedules import RectifiedFlow
from diffusion_lab.sampling.ancestral import DDIM, DDIMInversion
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.sampling.ode import Heun
from diffusion_lab.sampling.pipeline import final_state, trajectory

FLOW = RectifiedFlow()
DATA = GaussianData([0.4, -0.3, 0.1], [0.4, 0.8, 1.5])
X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def flow(x, t, s):
    """The state at times s (B, 1) that the flow takes x (B, 3) at times t to."""
    std = [((1 - time) ** 2 * DATA.std**2 + time**2).sqrt() for time in (t, s)]
    return (1 - s) * DATA.mean + std[1] / std[0] * (x - (1 - t) * DATA.mean)


class FlowMap(torch.nn.Module):
    """The exact average velocity from t to s; at s = t, the velocity."""

    two_times, num_classes = True, 1

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, c_noise, label=None, to=None):
        t, s = c_noise[:, None] / 1000, to[:, None] / 1000
        self.asked.append((t.detach(), s.detach()))
        s = torch.where(s == t, s - 1e-6, s)  # a difference in the place of the derivative
        return (x - flow(x, t, s)) / (t - s)


def model():
    return GaussianDiffusion(FlowMap(), FLOW, Velocity())


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_sampler_that_says_where_it_goes_is_exact_in_any_number_of_steps(steps):
    m = model()
    out = final_state(trajectory(m, DDIM(steps), shape=(3,), num_samples=5, noise=Drawn(), x=X))
    one, zero = torch.ones(5, 1).double(), torch.zeros(5, 1).double()
    assert torch.allclose(out, flow(X, one, zero), atol=1e-9)
    told = [(float(t[0]), float(s[0])) for t, s in m.denoiser.asked]
    grid = (1 - torch.arange(steps + 1) / steps).tolist()
    assert told == [pytest.approx(pair) for pair in itertools.pairwise(grid)]


def test_inversion_goes_up_in_one_step_and_comes_back():
    m = model()
    data = flow(X, torch.ones(5, 1).double(), torch.full((5, 1), FLOW.t_min).double())
    up = trajectory(m, DDIMInversion(2), shape=(3,), num_samples=5, noise=Drawn(), x=data)
    last = list(up)[-1]
    assert float(last.s.t) == 1.0
    assert torch.allclose(last.x, flow(data, torch.full((5, 1), 0.5).double(), torch.ones(5, 1)))


def test_a_solver_of_the_ode_asks_for_the_velocity_but_in_its_last_step():
    m = model()
    out = final_state(trajectory(m, Heun(40), shape=(3,), num_samples=5, noise=Drawn(), x=X))
    assert all(torch.equal(t, s) for t, s in m.denoiser.asked[:-1])
    assert float(m.denoiser.asked[-1][1].max()) == 0
    exact = flow(X, torch.ones(5, 1).double(), torch.zeros(5, 1).double())
    assert torch.allclose(out, exact, atol=2e-3) and not torch.allclose(out, exact, atol=1e-7)


def test_guidance_asks_both_answers_where_to_go():
    m, (at, to) = model(), (FLOW(torch.tensor(t).double()) for t in ([0.9, 0.5], [0.2, 0.0]))
    m.denoiser.num_classes = 1
    query = Query(X[:2], at, to, Condition(torch.zeros(2).long()))
    guided = ClassifierFree(2.0)(m)(query).x0
    t, s = m.denoiser.asked[-1]
    assert t.flatten().tolist() == pytest.approx([0.9, 0.5] * 2)
    assert s.flatten().tolist() == pytest.approx([0.2, 0.0] * 2)
    assert torch.allclose(guided, m(query).x0)  # it does not tell classes apart


class MeanFlow(Objective):
    """Squared error of u = v - (t - s) du/dt, with the model's own velocity v."""

    def forward(self, model, batch, ctx):
        both = torch.stack([ctx.noise.uniform(len(batch.x0)) for _ in range(2)])
        t, s = both.sort(0, descending=True).values
        x = batch.x0  # any states will do: on the exact map the identity holds everywhere
        at, to = model.schedule(t), model.schedule(s)
        with torch.no_grad():
            v = model(Query(x, at, given=batch.given)).raw

        def average(x, t):
            return model(Query(x, model.schedule(t), to, batch.given)).raw

        u, slope = jvp(average, (x, t), (v, torch.ones_like(t)))
        target = v - (t - s)[:, None] * slope
        return (u - target.detach()).square().mean(1)


def test_the_exact_map_has_no_loss_as_a_mean_flow():
    """An objective of two times: its derivative runs through the model and both of its times."""
    m = model()
    loss = MeanFlow()(m, Batch(X), TrainContext(Drawn(1)))
    assert loss.shape == (5,) and loss.max() < 1e-9
    m.denoiser.forward = lambda x, c_noise, label=None, to=None: x * c_noise[:, None] / 1000
    assert MeanFlow()(m, Batch(X), TrainContext(Drawn(1))).min() > 1e-6

"""Conditions of a network, and networks as a model asks them: two times, vectors, derivatives."""

from functools import partial

import pytest
import torch
from torch.func import jvp, vmap

from diffusion_lab.denoisers.attention import attend
from diffusion_lab.denoisers.blocks import Bilinear, MaxPool, PlainBlock, ResBlock
from diffusion_lab.denoisers.cnn import CNN
from diffusion_lab.denoisers.conditioner import Conditions
from diffusion_lab.denoisers.dit import DiT
from diffusion_lab.denoisers.mlp import MLP
from diffusion_lab.denoisers.unet import UNet
from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import levels
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import EDM, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousCosine,
    RectifiedFlow,
    VarianceExploding,
)
from diffusion_lab.errors import ArgumentError

UNET = partial(UNet, 1, 8, 10, base_channels=8, multipliers=(1, 2), heads=2, time_dim=16)
NETWORKS = {
    "unet": UNET,
    "unet_plain": partial(UNET, widen_in_blocks=True, down=MaxPool, up=Bilinear, block=PlainBlock),
    "unet_added": partial(UNET, block=partial(ResBlock, scale_shift=False), pad=True, patch=2),
    "dit": partial(DiT, 1, 8, 10, patch=2, width=16, depth=2, heads=2, time_dim=16),
    "cnn": partial(CNN, 1, 10, width=16, blocks=2, time_dim=16),
    "mlp": partial(MLP, (1, 8, 8), 10, width=16, time_dim=16),
}
every_network = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
FLOW = RectifiedFlow()


def awake(net, seed=1):
    """Give the parameters that start at zero a value, so that every part has an effect."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        if not parameter.any():
            with torch.no_grad():
                parameter.normal_(0, 0.1, generator=generator)
    return net


def built(build, schedule=FLOW, target=None, seed=0, **conditions):
    torch.manual_seed(seed)
    net = awake(build(conditions=Conditions(**conditions)) if conditions else build())
    return GaussianDiffusion(net, schedule, target or Velocity()).double().eval()


def batch(n=3, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------- conditions of a network


FURTHER = {"vector_dim": 5, "image_channels": 2, "two_times": True}


@every_network
def test_further_conditions_change_the_answer_each_on_its_own(build):
    model, x, at = built(build, **FURTHER), batch(), FLOW(0.7)
    label, vector, image = torch.arange(3), torch.ones(3, 5).double(), batch().repeat(1, 2, 1, 1)
    asked = Query(x, at, FLOW(0.2), Condition(label, vector, image))
    answers = [
        asked,
        asked._replace(to=FLOW(0.5)),
        asked._replace(given=Condition(label + 1, vector, image)),
        asked._replace(given=Condition(label, 2 * vector, image)),
        asked._replace(given=Condition(label, vector, -image)),
    ]
    answers = [model(query).x0 for query in answers]
    assert all(not torch.allclose(answers[0], other) for other in answers[1:])


@every_network
def test_a_missing_condition_is_the_null_one(build):
    model, x, at = built(build, **FURTHER), batch(), FLOW(0.7)
    given = Condition(torch.arange(3), torch.ones(3, 5).double(), batch().repeat(1, 2, 1, 1))
    null = model(Query(x, at, at, given.null(model.num_classes))).x0
    assert torch.equal(model(Query(x, at)).x0, null)
    assert not torch.allclose(model(Query(x, at, given=given)).x0, null)


@every_network
def test_a_network_warm_started_without_them_is_what_it_was(build):
    """Conditions whose weights were not in the file change nothing until they are trained."""
    old, torch_seed = built(build).denoiser, 7
    torch.manual_seed(torch_seed)
    new = build(conditions=Conditions(vector_dim=5, two_times=True)).double().eval()
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("embed.") for name in missing)
    x, at = batch(), FLOW(0.7)
    given = Condition(torch.arange(3), torch.ones(3, 5).double())
    answer = GaussianDiffusion(new, FLOW, Velocity())(Query(x, at, FLOW(0.1), given)).x0
    before = GaussianDiffusion(old, FLOW, Velocity())(Query(x, at, given=Condition(given.label)))
    assert torch.equal(answer, before.x0)


@every_network
def test_what_a_network_was_not_built_for_is_refused(build):
    model, x, at = built(build), batch(), FLOW(0.7)
    for name, part in (("vector", torch.ones(3, 5)), ("image", x), ("estimate", x)):
        with pytest.raises(ValueError, match=name):
            model(Query(x, at, given=Condition(**{name: part})))
    with pytest.raises(ValueError, match="to:"):
        model.denoiser.condition_inputs(x, torch.ones(3), to=torch.ones(3))
    same = model(Query(x, at, FLOW(0.1))).x0  # a network of one time need not know
    assert torch.equal(same, model(Query(x, at)).x0)


def test_conditions_out_of_range_are_refused():
    for wrong in ({"vector_dim": 0}, {"image_channels": -1}):
        (name,) = wrong
        with pytest.raises(ArgumentError, match=name):
            Conditions(**wrong)


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_names_of_weights_are_those_of_older_checkpoints(kind):
    names = [name for name in NETWORKS[kind]().state_dict() if name.startswith("embed.")]
    mlp = [f"embed.mlp.{k}.{part}" for k in (0, 2) for part in ("weight", "bias")]
    assert names == [*mlp, "embed.table.weight"]


# ---------------------------------------------------------------- networks of other libraries


class Plain(torch.nn.Module):
    """A user's network, with layers called as it pleases."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.embed, self.condition = torch.nn.Embedding(4, 2), torch.nn.Linear(2, 2)
        self.seen = []

    def forward(self, x, c_noise, label=None, **further):
        self.seen.append((c_noise, label, sorted(further)))
        return x


def test_a_network_of_another_library_is_asked_by_c_noise_and_label():
    net, x, label = Plain(), torch.randn(2, 2), torch.tensor([0, 3])
    model = GaussianDiffusion(net, FLOW, Velocity())
    model(Query(x, FLOW(0.5), FLOW(0.2), Condition(label)))
    c_noise, seen, further = net.seen[-1]
    assert c_noise.tolist() == [500.0, 500.0] and seen is label and further == []
    model(Query(x, FLOW(0.5), FLOW(0.2)))
    assert net.seen[-1][1] is None
    net.two_times = net.self_conditioning = True
    model = GaussianDiffusion(net, FLOW, Velocity())
    model(Query(x, FLOW(0.5), FLOW(0.2), Condition(label, x, x)))
    assert net.seen[-1][2] == ["estimate", "image", "to", "vector"]


# ---------------------------------------------------------------- two times


def test_c_noise_of_data_is_finite_where_it_is_the_logarithm_of_sigma():
    class TwoTimes(Plain):
        two_times = True

        def forward(self, x, c_noise, label=None, to=None):
            self.seen.append(to)
            return x

    schedule = VarianceExploding()
    model = GaussianDiffusion(TwoTimes(), schedule, EDM(0.5))
    model(Query(torch.randn(2, 2), schedule(0.5), schedule(0.0)))
    expected = float(schedule.conditioning(schedule(schedule.t_min)))
    assert model.denoiser.seen[0].tolist() == pytest.approx([expected] * 2)


@every_network
def test_a_network_of_two_times_is_told_where_it_goes_row_by_row(build):
    model, x = built(build, two_times=True), batch()
    at, to = (FLOW(torch.tensor(t).double()) for t in ([0.9, 0.5, 0.3], [0.4, 0.0, 0.2]))
    whole = model(Query(x, at, to)).x0
    for k, (t, s) in enumerate(zip(levels(at), levels(to), strict=True)):
        assert torch.allclose(model(Query(x[k : k + 1], t, s)).x0, whole[k : k + 1], atol=1e-12)


# ---------------------------------------------------------------- derivatives


@every_network
@pytest.mark.parametrize(
    ("schedule", "target"), [(FLOW, Velocity()), (ContinuousCosine(), V())], ids=["flow", "cosine"]
)
def test_forward_mode_derivatives_in_state_and_times_are_right(build, schedule, target):
    """As MeanFlow (arXiv 2505.13447) needs them: d/dr of the model along (dx, dt, ds)."""
    model, x = built(build, schedule, target, two_times=True), batch()
    t, s = (torch.tensor(times).double() for times in ([0.7, 0.4, 0.2], [0.3, 0.1, 0.05]))
    tangents = batch(seed=3), torch.tensor([1.0, -0.5, 0.3]).double(), 0.5 * torch.ones(3).double()

    def answer(x, t, s):
        given = Condition(torch.arange(3))
        return model(Query(x, schedule(t), schedule(s), given)).x0

    value, slope = jvp(answer, (x, t, s), tangents)
    assert torch.allclose(value, answer(x, t, s))
    h = 1e-6  # c_noise, 1000 t, then moves by 1e-3
    ahead, behind = (
        answer(*(part + sign * h * d for part, d in zip((x, t, s), tangents, strict=True)))
        for sign in (1, -1)
    )
    assert torch.allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)
    for parameter in model.parameters():
        parameter.grad = None
    jvp(answer, (x, t, s), tangents)[1].square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_attention_has_forward_mode_derivatives(which):
    generator = torch.Generator().manual_seed(0)
    qkv, tangent = torch.randn(2, 3, 2, 4, 6, 5, generator=generator, dtype=torch.float64)

    def of(part):
        return attend(*(part if k == which else qkv[k] for k in range(3)))

    with torch.no_grad():
        slope = jvp(of, (qkv[which],), (tangent[which],))[1]
        h = 1e-6
        ahead, behind = (of(qkv[which] + sign * h * tangent[which]) for sign in (1, -1))
        assert torch.allclose(slope, (ahead - behind) / (2 * h), atol=1e-8)
        outside = vmap(lambda d: jvp(of, (qkv[which],), (d,))[1])(torch.stack([tangent[which]] * 2))
        assert torch.allclose(outside[1], slope, atol=1e-12)
        inside = jvp(vmap(attend), tuple(qkv[:, None]), tuple(tangent[:, None]))[1]
        assert inside.shape == qkv[0][None].shape and inside.isfinite().all()

"""Conditions and queries as values: null, rows, mixtures; terms of a loss that add up."""

import pytest
import torch
from exact import Drawn, loss_of

from diffusion_lab.diffusion.answers import with_each
from diffusion_lab.diffusion.conditions import Condition, Query, joined
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.objectives import Denoising
from diffusion_lab.diffusion.parameterizations import X0
from diffusion_lab.diffusion.schedules import LinearBetas, RectifiedFlow
from diffusion_lab.diffusion.terms import BoundTerm, RegressionTerm, Sum, Term
from diffusion_lab.diffusion.times import UniformTime
from diffusion_lab.diffusion.weights import AbsoluteError, ConstantWeight, SquaredError
from diffusion_lab.errors import ArgumentError

FULL = Condition(
    torch.arange(4),
    torch.arange(8.0).view(4, 2) + 1,
    torch.ones(4, 1, 2, 2) * torch.arange(1.0, 5).view(4, 1, 1, 1),
    torch.full((4, 3), 7.0),
)


def same(one, other):
    return all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


def test_null_hides_all_but_the_estimate():
    null = FULL.null(9)
    assert null.label.tolist() == [9] * 4
    assert not null.vector.any() and not null.image.any() and null.vector.shape == (4, 2)
    assert null.estimate is FULL.estimate
    assert same(Condition().null(None), Condition())
    assert same(Condition(vector=FULL.vector).null(None), Condition(vector=0 * FULL.vector))
    with pytest.raises(ValueError, match="without classes"):
        FULL.null(None)


def test_a_condition_is_empty_where_nothing_is_asked_for():
    assert Condition().empty and Condition(estimate=FULL.estimate).empty
    for name in ("label", "vector", "image"):
        assert not Condition(**{name: getattr(FULL, name)}).empty


def test_rows_are_chosen_mixed_and_joined():
    mask = torch.tensor([True, False, False, True])
    mixed = FULL.where(mask, FULL.null(9))
    assert mixed.label.tolist() == [0, 9, 9, 3]
    for part, whole in ((mixed.vector, FULL.vector), (mixed.image, FULL.image)):
        assert torch.equal(part[mask], whole[mask]) and not part[~mask].any()
    parts = [FULL.rows(slice(0, 1)), FULL.rows(torch.tensor([1, 2, 3]))]
    assert same(joined(parts), FULL)
    assert same(FULL.to("cpu"), FULL)
    assert Condition(FULL.label).rows(slice(1)).vector is None
    with pytest.raises(ValueError, match="vector"):
        joined([FULL, FULL._replace(vector=None)])


def test_one_query_under_each_condition():
    schedule, x = RectifiedFlow(), torch.randn(4, 3)
    at, to = schedule(torch.tensor([0.2, 0.4, 0.6, 0.8]).double()), schedule(0.1)
    both = with_each(Query(x, at, to), [FULL, FULL.null(9)])
    assert torch.equal(both.x, torch.cat((x, x)))
    assert torch.equal(both.at.sigma, at.sigma.repeat(2)) and both.to is to
    assert both.given.label.tolist() == [0, 1, 2, 3, 9, 9, 9, 9]
    assert with_each(Query(x, at), [FULL]).to is None


# ---------------------------------------------------------------- terms


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([0.3, 0.2]))

    def forward(self, x, c_noise, label=None):
        return torch.cat([x * s for s in self.scale], dim=1)


class Learned(Term):
    """A term with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, model, noised):
        return noised.denoised.x0.flatten(1).mean(1) * self.level


def model():
    return GaussianDiffusion(Scaled(), LinearBetas(50), X0()).double()


def test_terms_of_one_draw_add_up():
    x0 = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 1, 3)
    terms = [
        RegressionTerm(ConstantWeight(), SquaredError()),
        RegressionTerm(ConstantWeight(), AbsoluteError()),
        BoundTerm(),
    ]
    each = [loss_of(Denoising(UniformTime(), term), model(), x0, Drawn(1)) for term in terms]
    calls = []
    m = model()
    m.denoiser.register_forward_hook(lambda *_: calls.append(1))
    total = loss_of(Denoising(UniformTime(), Sum(terms, [1.0, 0.5, 0.1])), m, x0, Drawn(1))
    assert torch.allclose(total, each[0] + 0.5 * each[1] + 0.1 * each[2]) and len(calls) == 1
    plain = loss_of(Denoising(UniformTime(), Sum(terms[:2])), model(), x0, Drawn(1))
    assert torch.allclose(plain, each[0] + each[1])


def test_parameters_of_terms_are_those_of_the_objective():
    term = Sum([RegressionTerm(ConstantWeight(), SquaredError()), Learned()])
    objective = Denoising(UniformTime(), term)
    assert [name for name, _ in objective.named_parameters()] == ["term.terms.1.level"]
    loss_of(objective, model(), torch.ones(2, 1, 3).double(), Drawn()).mean().backward()
    assert term.terms[1].level.grad is not None
    assert list(objective.state_dict()) == ["term.terms.1.level"]
    assert not Denoising(UniformTime(), term.terms[0]).state_dict()


def test_sums_are_checked():
    bound = Sum([RegressionTerm(ConstantWeight(), SquaredError()), BoundTerm()])
    with pytest.raises(ValueError, match="steps"):
        Denoising(UniformTime(), bound).check(RectifiedFlow())
    Denoising(UniformTime(), bound).check(LinearBetas(10))
    for terms, factors, name in (([], None, "terms"), ([BoundTerm()], [1.0, 2.0], "factors")):
        with pytest.raises(ArgumentError, match=name):
            Sum(terms, factors)

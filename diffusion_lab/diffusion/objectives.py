r"""Training objectives: the loss of each image of a batch.

`Objective` is all that a training loop knows, and what a new kind of training writes: a loss of two
times, of a teacher, with parameters of its own. Those here noise each image once: its time t comes
from a timestep distribution (`times`), eps ~ N(0, I) is paired with x0 by the coupling
(`couplings`), x_t = alpha x0 + sigma eps, and the loss is a function of the model's answer
(`terms`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.couplings import Coupling, Independent
from diffusion_lab.diffusion.gaussian import combine, marginal
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.diffusion.self_conditioning import self_conditioned
from diffusion_lab.diffusion.terms import BoundTerm, Error, Noised, RegressionTerm, Sum, Term
from diffusion_lab.diffusion.times import TimestepDistribution
from diffusion_lab.diffusion.weights import Weight
from diffusion_lab.ranges import NonNegative, Share, checked


class Batch(NamedTuple):
    """Clean images (B, *) and their conditions, some of which the training has dropped."""

    x0: Tensor
    given: Condition = Condition()


class TrainContext(NamedTuple):
    """What an objective may use beside the batch.

    Attributes:
        noise: All random numbers of this step come from here.
        step: Optimizer steps done.
        average: The model with averaged weights, where the training keeps them.
        teacher: A trained model to distil from, where there is one.
    """

    noise: Noise
    step: int = 0
    average: GaussianDiffusion | None = None
    teacher: GaussianDiffusion | None = None


class Objective(nn.Module, ABC):
    """A training loss. A module: its parameters are trained, averaged and stored with the model's.

    What is learned otherwise, such as how often to train each time, is no parameter; it goes by
    `learned_state`.
    """

    @abstractmethod
    def forward(self, model: GaussianDiffusion, batch: Batch, ctx: TrainContext) -> Tensor:
        """Loss of each image, (B,)."""

    def scores(
        self, model: GaussianDiffusion, batch: Batch, ctx: TrainContext
    ) -> dict[str, Tensor]:
        """What a validation tells of each image, (B,) by name: the loss, and more if there is."""
        return {"loss": self(model, batch, ctx)}

    def check(self, schedule: Schedule) -> None:
        """Check that the schedule can be trained so (ValueError)."""

    def learned_state(self) -> dict[str, Any]:
        """What was learned beside parameters: plain containers and tensors, {} for nothing."""
        return {}

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Go on from it."""


class AtOneTime(Objective):
    """A loss of each image at one time."""

    def __init__(self, time: TimestepDistribution) -> None:
        super().__init__()
        self.time = time

    def weighed(
        self, model: GaussianDiffusion, schedule: Schedule, t: Tensor, loss: Tensor
    ) -> Tensor:
        """The loss over the density of its time, where some are drawn too often."""
        importance = self.time.learner.importance(schedule, t)
        if model.training:
            self.time.learner.observe(schedule, t, loss)
        return loss if importance is None else combine((importance, loss))

    def check(self, schedule: Schedule) -> None:
        """Check that the timestep distribution fits (ValueError)."""
        self.time.learner.check(schedule)

    def learned_state(self) -> dict[str, Any]:
        """What the timestep distribution learned."""
        return self.time.learner.state_dict()

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Hand the timestep distribution its own."""
        self.time.learner.load_state_dict(state)


class Classification(AtOneTime):
    """Cross-entropy -log p(label | x_t) in nats (Dhariwal & Nichol, arXiv 2105.05233, section 4.1).

    The network maps (x_t (B, *), c_noise (B,), None) to logits (B, K) and says `denoises = False`;
    schedule and timestep distribution are those of the diffusion model that it will guide.
    """

    def forward(self, model: GaussianDiffusion, batch: Batch, ctx: TrainContext) -> Tensor:
        """Cross-entropy of each image, (B,)."""
        return self.scores(model, batch, ctx)["loss"]

    def scores(
        self, model: GaussianDiffusion, batch: Batch, ctx: TrainContext
    ) -> dict[str, Tensor]:
        """Also `accuracy`: 1 where the largest logit is that of the label."""
        x0, label, schedule = batch.x0, batch.given.label, model.schedule
        if label is None:
            raise ValueError("data.num_classes=null: a classifier needs classes")
        t = self.time(schedule, ctx.noise, len(x0))
        level = schedule(t)
        x_t = marginal(x0, ctx.noise.normal(x0), level)
        c_noise = schedule.conditioning(level).to(x0.device, x0.dtype)
        logits = model.denoiser(x_t, c_noise, None).float()
        loss = self.weighed(model, schedule, t, cross_entropy(logits, label, reduction="none"))
        return {"loss": loss, "accuracy": (logits.argmax(1) == label).float()}


class Denoising(AtOneTime):
    """A term of the model's answer at one time an image.

    A self-conditioning network is trained on its own estimate for `estimate_share` of the images.
    """

    @checked
    def __init__(
        self,
        time: TimestepDistribution,
        term: Term,
        coupling: Coupling | None = None,
        estimate_share: Share = 0.5,
    ) -> None:
        super().__init__(time)
        self.term = term
        self.coupling = Independent() if coupling is None else coupling
        self.estimate_share = estimate_share

    def forward(self, model: GaussianDiffusion, batch: Batch, ctx: TrainContext) -> Tensor:
        """Loss of each image, (B,)."""
        (x0, given), schedule, noise = batch, model.schedule, ctx.noise
        t = self.time(schedule, noise, len(x0))
        level = schedule(t)
        eps = self.coupling(x0, noise.normal(x0), given.label)
        x_t = marginal(x0, eps, level)
        query = self_conditioned(model, Query(x_t, level, given=given), self.estimate_share, noise)
        loss: Tensor = self.term(model, Noised(x0, eps, x_t, level, model(query)))
        return self.weighed(model, schedule, t, loss)

    def check(self, schedule: Schedule) -> None:
        """Check that the term and the timestep distribution fit (ValueError)."""
        self.term.check(schedule)
        super().check(schedule)


class Regression(Denoising):
    """A weighted error of the network's output; with `bound_weight`, L_hybrid.

    `bound_weight` is the factor on the variational bound (bits per dimension, all T steps), which
    is what trains a learned variance; its mean is held fixed there. 0.001 is L_hybrid of Nichol &
    Dhariwal (arXiv 2102.09672, section 3.1).
    """

    @checked
    def __init__(
        self,
        time: TimestepDistribution,
        weight: Weight,
        error: Error,
        coupling: Coupling | None = None,
        bound_weight: NonNegative = 0.0,
        estimate_share: float = 0.5,
    ) -> None:
        term: Term = RegressionTerm(weight, error)
        if bound_weight:
            term = Sum([term, BoundTerm(fixed_mean=True)], [1.0, bound_weight])
        super().__init__(time, term, coupling, estimate_share)


class VariationalBound(Denoising):
    """The full variational bound in bits per dimension, one step drawn at a time.

    Ho et al. (arXiv 2006.11239, eq. 5) without the prior's term, which has nothing to learn. Its
    terms differ by orders of magnitude: `ImportanceTime` was made for it, and it alone makes up for
    the probability of a step. `variance_fraction` is that of `BoundTerm`.
    """

    def __init__(
        self,
        time: TimestepDistribution,
        variance_fraction: float | None = 1.0,
        coupling: Coupling | None = None,
        estimate_share: float = 0.5,
    ) -> None:
        super().__init__(time, BoundTerm(variance_fraction), coupling, estimate_share)

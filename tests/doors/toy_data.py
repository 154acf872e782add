"""What a person's own package may hold: data with conditions beside the class, an objective."""

import numpy as np
import torch
from torch.nn import functional as F

from diffusion_lab.data.data_module import ImageDataModule, Splits
from diffusion_lab.data.toy import PointsDataModule
from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import marginal
from diffusion_lab.diffusion.objectives import Objective
from diffusion_lab.pixels import from_bytes


class Rounded(PointsDataModule):
    """Normal points; the condition vector is the point rounded to whole numbers, then 1.

    The 1 tells the vector (0, 0, 1) of a point about zero from the null vector.
    """

    class_names = ("all",)

    def draw(self, count, seed):
        points = np.random.default_rng(seed).normal(size=(count, 2))
        return points, np.zeros(count, dtype=np.int64)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x0, label = batch
        return (
            batch if label is None else {"x0": x0, "vector": F.pad(x0.round(), (0, 1), value=1.0)}
        )


class Halves(ImageDataModule):
    """4 x 4 pixels, dark on one side and light on the other; the condition is the picture at 2 x 2.

    The first test picture is dark on the left, the second on the right, and so on.
    """

    class_names = ("left", "right")
    original = (1, 4, 4)

    def load(self):
        def drawn(count, seed):
            side = torch.arange(count) % 2
            noise = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
            light = (torch.arange(4) > 1).int() != side.view(-1, 1, 1, 1)
            return (light * 150 + noise * 100).byte(), side

        return Splits(*drawn(600, 1), *drawn(20, 2), name="halves", sha256={})

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, label = batch
        x0 = from_bytes(images) if images.dtype == torch.uint8 else images
        if label is None:
            return x0, None
        return {"x0": x0, "image": F.interpolate(F.avg_pool2d(x0, 2), scale_factor=2.0)}


class Distillation(Objective):
    """Squared distance to the teacher's x0-hat."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def forward(self, model, batch, ctx):
        schedule, x0 = model.schedule, batch.x0
        level = schedule(self.time(schedule, ctx.noise, len(x0)))
        x_t = marginal(x0, ctx.noise.normal(x0), level)
        query = Query(x_t, level, given=batch.given)
        with torch.no_grad():
            wanted = ctx.teacher(query).x0
        return (model(query).x0 - wanted).square().flatten(1).mean(1)


class TwoTimes(Objective):
    """The network's target, told a random level that is gone to."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def forward(self, model, batch, ctx):
        both = [self.time(model.schedule, ctx.noise, len(batch.x0)) for _ in range(2)]
        to, at = torch.stack(both).sort(0).values
        eps, at, to = ctx.noise.normal(batch.x0), model.schedule(at), model.schedule(to)
        raw = model(Query(marginal(batch.x0, eps, at), at, to, batch.given)).raw
        return (raw - model.target(batch.x0, eps, at)).square().flatten(1).mean(1)

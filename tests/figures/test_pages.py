"""Pages that a run leaves behind: what they show, what they refuse, and that none costs a run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, SHAPE, Dashboard, TinyData, TinyNet, tiny_module, tiny_trainer

from diffusion_lab.checkpoints.format import read_checkpoint, weights_of
from diffusion_lab.denoisers.cnn import CNN
from diffusion_lab.denoisers.mlp import MLP
from diffusion_lab.denoisers.unet import UNet
from diffusion_lab.diffusion.parameterizations import Eps
from diffusion_lab.diffusion.schedules import LinearBetas
from diffusion_lab.errors import ConfigError
from diffusion_lab.figures.grids import image_grid, save_grid, to_pixels
from diffusion_lab.figures.network_diagram import ArchitectureFigure, plan_of
from diffusion_lab.figures.run_figures import Alias, ProgressFigure
from diffusion_lab.figures.sample_figures import (
    DenoisingFigure,
    GridFigure,
    StepsFigure,
    StripFigure,
)
from diffusion_lab.loading import load
from diffusion_lab.sampling.ancestral import DDIM, DDPM
from diffusion_lab.sampling.spacing import Trailing
from diffusion_lab.training.callbacks import FinalFigures, Interrupted, SampleGrid
from diffusion_lab.training.ema import EMA
from diffusion_lab.training.module import DiffusionModule


class Failing:
    file = "never.png"

    def write(self, model: DiffusionModule, folder: Path) -> Path:
        raise RuntimeError("no ink")


class Noting:
    """What a page is given."""

    caption = "a note"

    def write(self, model: DiffusionModule, folder: Path) -> Path:
        self.training = model.training
        self.grad = torch.is_grad_enabled()
        self.weights = {k: v.clone() for k, v in model.state_dict().items()}
        self.grids = sorted(path.name for path in (folder / "samples").glob("*.png"))
        path = folder / "note.txt"
        path.write_text("seen")
        return path


def fit(folder: Path, pages: dict[str, Any], *others: pl.Callback, **changes: Any) -> pl.Trainer:
    module = changes.pop("module", None) or tiny_module()
    callbacks = [EMA(0.9), SampleGrid(folder, 6), *others, FinalFigures(folder, pages)]
    trainer = tiny_trainer(folder, callbacks=callbacks, **({"max_epochs": 2} | changes))
    trainer.fit(module, datamodule=TinyData())
    return trainer


def test_pages_are_made_of_the_final_average_after_the_last_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = Noting()
    pages = {
        "grid": GridFigure(file="pages/grid.png", num_samples=4, label=1, columns=2, seed=7),
        "off": None,
        "note": note,
        "latest": Alias(file="checkpoints/model_latest.pth", of="checkpoints/last.ckpt"),
        "generated": Alias(file="generated", of="samples"),
        "progress": ProgressFigure(file="progress.png", images=3),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not be made.*")
        trainer = fit(tmp_path, pages, max_steps=33, max_epochs=-1)
    assert trainer.model.training or trainer.lightning_module.training
    assert not note.training and not note.grad
    assert note.grids == ["epoch_001.png", "epoch_002.png"]
    stored = weights_of(read_checkpoint(tmp_path), "ema")
    assert all(torch.equal(note.weights[name], value) for name, value in stored.items())

    model = tiny_module().eval()
    model.load_state_dict(weights_of(read_checkpoint(tmp_path / "checkpoints/model_latest.pth")))
    wanted = image_grid(model.sample(4, 1, seed=7), columns=2, scale=2)
    assert (np.asarray(Image.open(tmp_path / "pages" / "grid.png")) == np.asarray(wanted)).all()

    record = json.loads((tmp_path / "artefacts.json").read_text())
    assert record["step"] == 33
    assert [page["name"] for page in record["pages"]] == [n for n in pages if n != "off"]
    assert record["pages"][0] == {
        "name": "grid", "caption": "4 samples of class 1, seed 7", "files": ["pages/grid.png"],
        "error": None,
    }  # fmt: skip
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("drawing")]
    assert len(said) == 5 and said[0].startswith("drawing pages/grid.png ... ")


def test_a_page_that_fails_is_a_warning_and_the_others_are_made(tmp_path: Path) -> None:
    pages = {"bad": Failing(), "good": GridFigure(file="good.png", num_samples=3)}
    with pytest.warns(UserWarning, match=r"pages\.bad \(never\.png\) could not be made.*no ink"):
        trainer = fit(tmp_path, pages)
    assert trainer.state.finished and (tmp_path / "good.png").is_file()
    bad, good = json.loads((tmp_path / "artefacts.json").read_text())["pages"]
    assert bad["error"] == "RuntimeError: no ink" and bad["files"] == []
    assert good["error"] is None


def test_bad_pages_are_refused_before_training(tmp_path: Path) -> None:
    pages = {
        "nine": GridFigure(file="nine.png", label=9),
        "long": StripFigure(file="strip.png", sampler=DDIM(2000, Trailing())),
        "fine": GridFigure(file="fine.png"),
    }
    module = tiny_module(schedule=LinearBetas(1000), parameterization=Eps())
    with pytest.raises(ConfigError) as caught:
        fit(tmp_path, pages, module=module)
    assert module.trainer.global_step == 0
    first, second = str(caught.value).splitlines()
    assert first == f"callbacks.artefacts.pages.nine: label=9: classes are 0 .. {CLASSES - 1}"
    assert second.startswith("callbacks.artefacts.pages.long: ") and "2000" in second
    with pytest.raises(ValueError, match=r"pages\.odd=3 has no write"):
        FinalFigures(tmp_path, {"odd": 3})
    with pytest.raises(ConfigError, match="without classes"):
        fit(tmp_path / "x", {"all": GridFigure(file="a.png", label="all")}, module=unconditional())


def unconditional() -> DiffusionModule:
    return tiny_module(denoiser=TinyNet(None), num_classes=None, guidance=None)


def test_a_run_that_is_stopped_makes_no_pages(tmp_path: Path) -> None:
    class Stop(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.current_epoch == 1:
                raise Interrupted(15, trainer.global_step)

    with pytest.raises(SystemExit):
        fit(tmp_path, {"note": Noting()}, Stop())
    assert not (tmp_path / "note.txt").exists() and not (tmp_path / "artefacts.json").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridFigure(file="/tmp/x.png"), "inside the run's folder"),
        (lambda: GridFigure(file="../x.png"), "inside the run's folder"),
        (lambda: GridFigure(file="x.jpg"), r"must end in \.png"),
        (lambda: GridFigure(file="x.png", num_samples=0), "num_samples=0 must be .* at least 1"),
        (lambda: GridFigure(file="x.png", columns=0), "columns=0"),
        (lambda: StripFigure(file="x.png", moments=0), "moments=0"),
        (lambda: StepsFigure(folder=""), "folder=''"),
        (lambda: StepsFigure(folder="samples"), "holds the grids"),
        (lambda: DenoisingFigure(folder="samples"), "holds the grids"),
        (lambda: DenoisingFigure(strip=0), "strip=0"),
        (lambda: ProgressFigure(file="x.png", images=0), "images=0"),
        (lambda: Alias(file="a", of="../b"), "of='../b'"),
        (lambda: Alias(file="a", of="a"), "beside each other"),
        (lambda: Alias(file="samples/a", of="samples"), "beside each other"),
    ],
)
def test_pages_name_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_are_numbered_by_what_is_left(tmp_path: Path) -> None:
    discrete = tiny_module(schedule=LinearBetas(20), parameterization=Eps(), sampler=DDPM()).eval()
    page = StepsFigure(folder="steps", num_samples=3, label="all", moments=6, scale=1, seed=2)
    page.check(discrete)
    folder = page.write(discrete, tmp_path)
    numbers = [20, 16, 12, 8, 4, 0]
    assert sorted(p.name for p in folder.iterdir()) == [f"step_{k:04d}.png" for k in numbers[::-1]]
    steps = list(discrete.trajectory(3, "all", seed=2))
    for k in numbers:
        x = steps[-1].x if k == 0 else steps[20 - k].x_t
        drawn = np.asarray(Image.open(folder / f"step_{k:04d}.png"))
        assert (drawn == np.asarray(image_grid(x, columns=3, scale=1))).all(), k
    continuous = tiny_module(sampler=DDIM(4, Trailing())).eval()
    made = StepsFigure(folder="other", moments=99).write(continuous, tmp_path)
    assert sorted(p.name[5:9] for p in made.iterdir()) == ["0000", "0250", "0500", "0750", "1000"]
    only = StepsFigure(folder="only", moments=1).write(discrete, tmp_path)
    assert [p.name for p in only.iterdir()] == ["step_0000.png"]


def test_the_denoising_is_a_film_and_a_strip(tmp_path: Path) -> None:
    shown = Dashboard()
    pages = {"denoising": DenoisingFigure(num_samples=6, moments=3, strip=2, scale=1, seed=4)}
    module = tiny_module(sampler=DDIM(5, Trailing()))
    fit(tmp_path, pages, module=module, logger=[shown])
    record = json.loads((tmp_path / "artefacts.json").read_text())
    frames = record["pages"][0]["files"]
    assert frames == [f"samples/denoising/step_{k}.png" for k in ("1000", "0600", "0000")]
    steps = list(module.eval().trajectory(6, "all", seed=4))
    moments = [(steps[k].x_t, steps[k].x0) for k in (0, 2)] + [(steps[-1].x, steps[-1].x0)]
    for name, (x, x0) in zip(frames, moments, strict=True):
        wanted = image_grid(torch.cat((x, x0)), columns=6, scale=1)
        assert (np.asarray(Image.open(tmp_path / name)) == np.asarray(wanted)).all()
    ((picture,),) = shown.of("picture", "pages/denoising")
    assert picture.size == Image.open(tmp_path / "samples" / "denoising" / "strip.png").size


def test_what_shows_nothing_of_a_model_is_left_out(tmp_path: Path) -> None:
    page = DenoisingFigure()
    assert page.suits(tiny_module()) and page.suits(unconditional())
    assert not page.suits(points_module()) and not page.suits(tiny_module(sampler=None))
    artefacts = FinalFigures(tmp_path, {"denoising": page, "grid": GridFigure(file="grid.png")})
    artefacts.setup(None, points_module(), "fit")
    assert list(artefacts.suited) == ["grid"]
    page.write(unconditional().eval(), tmp_path)
    assert len(list((tmp_path / "samples" / "denoising").glob("step_*.png"))) == 4


def test_a_strip_ends_with_the_sample(tmp_path: Path) -> None:
    module = tiny_module(sampler=DDIM(10, Trailing())).eval()
    page = StripFigure(file="strip.png", num_samples=2, label=[1, 2], moments=4, scale=3)
    page.check(module)
    picture = np.asarray(Image.open(page.write(module, tmp_path)))
    last = to_pixels(module.sample(2, [1, 2]))[1].repeat(3, 0).repeat(3, 1)
    assert (picture[-14:-2, -14:-2] == last).all()


def points_module() -> DiffusionModule:
    return tiny_module(denoiser=MLP((2,)), shape=(2,), num_classes=None, guidance=None).eval()


def test_points_have_the_same_pages(tmp_path: Path) -> None:
    module = points_module()
    for page in (
        GridFigure(file="g.png"),
        StripFigure(file="s.png", num_samples=50),
        StepsFigure(folder="steps", num_samples=50, moments=3),
    ):
        page.check(module)
        page.write(module, tmp_path)
    assert len(list((tmp_path / "steps").iterdir())) == 3
    for name in ("g.png", "s.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 1
    for n in (1, 2):
        GridFigure(file=f"samples/epoch_{n:03d}.png").write(module, tmp_path)
    progress = Image.open(ProgressFigure(file="progress.png").write(module, tmp_path))
    assert progress.width > 1.8 * progress.height
    odd = tiny_module(denoiser=MLP((3,)), shape=(3,), num_classes=None, guidance=None)
    with pytest.raises(ValueError, match=r"shape=\(3,\)"):
        GridFigure(file="g.png").check(odd)


def test_progress_shows_the_same_images_of_each_grid(tmp_path: Path) -> None:
    grids = [torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(k)) for k in range(30)]
    for k, images in enumerate(grids):
        save_grid(
            tmp_path / "samples" / f"step_{(k + 1) * 500:06d}.png", images, columns=2, scale=2
        )
    (tmp_path / "samples" / "generated.png").write_bytes(b"another picture")
    page = ProgressFigure(file="progress.png", images=5, rows=4)
    picture = np.asarray(Image.open(page.write(tiny_module(), tmp_path)))
    assert picture.shape[0] == 4 * 10 + 2
    for row, k in enumerate((0, 10, 19, 29)):
        for column in range(5):
            top, right = 2 + 10 * row, picture.shape[1] - 2 - 10 * (4 - column)
            tile = picture[top : top + 8, right - 8 : right]
            assert (tile == to_pixels(grids[k])[column].repeat(2, 0).repeat(2, 1)).all()
    with pytest.raises(ValueError, match="holds no epoch"):
        page.write(tiny_module(), tmp_path / "empty")
    Image.new("L", (20, 20)).save(tmp_path / "samples" / "step_000500.png")
    with pytest.raises(ValueError, match=r"step_000500\.png is a picture that does not say"):
        page.write(tiny_module(), tmp_path)


def test_an_alias_is_relative_and_replaces_a_link_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_text("1")
    page = Alias(file="deep/model.pth", of="checkpoints/last.ckpt")
    for _ in range(2):
        page.write(tiny_module(), run)
    run.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "deep" / "model.pth").read_text() == "1"
    assert [path.name for path in (tmp_path / "moved" / "deep").iterdir()] == ["model.pth"]
    with pytest.raises(FileNotFoundError, match="of='best'"):
        Alias(file="b", of="best").write(tiny_module(), tmp_path / "moved")
    with pytest.raises(FileExistsError, match="is no link"):
        Alias(file="checkpoints", of="deep").write(tiny_module(), tmp_path / "moved")


def test_aliases_do_not_confuse_the_search_for_checkpoints(tmp_path: Path) -> None:
    from diffusion_lab.checkpoints.finding import find_checkpoint

    fit(tmp_path / "a" / "run", {
        "latest": Alias(file="checkpoints/model_latest.pth", of="checkpoints/last.ckpt"),
        "models": Alias(file="models", of="checkpoints"),
    })  # fmt: skip
    last = tmp_path / "a" / "run" / "checkpoints" / "last.ckpt"
    assert find_checkpoint(str(tmp_path / "a")) == last
    alias = last.with_name("model_latest.pth")
    assert find_checkpoint(str(alias)) == alias
    assert read_checkpoint(alias)["global_step"] == read_checkpoint(last)["global_step"] == 40
    with pytest.raises(ValueError, match="built by hand"):
        load(alias)


def test_the_diagram_counts_every_parameter_once() -> None:
    unet = UNet(1, 28, 10, base_channels=8, multipliers=(1, 2, 2), heads=2, blocks_per_level=2)
    plan = plan_of(unet, (1, 28, 28), 10)
    total = sum(p.numel() for p in unet.parameters())
    parts = [*plan.down, plan.middle, *plan.up, plan.beside]
    assert sum(part.parameters for part in parts) == total and f"{total:,}" in plan.title
    assert [part.name for part in plan.down] == [
        "stem", "encoder 1", "down 1", "encoder 2", "down 2",
    ]  # fmt: skip
    assert [part.name for part in plan.up] == ["up 1", "decoder 1", "up 2", "decoder 2", "output"]
    assert plan.skips == [(1, 3), (3, 1)]
    assert [part.output for part in plan.up[1::2]] == [(16, 14, 14), (8, 28, 28)]
    assert plan.middle.output == (16, 7, 7) and "SelfAttention" in plan.middle.inside
    assert not any(part._forward_hooks for part in unet.modules())


@pytest.mark.parametrize(
    ("net", "shape", "names"),
    [
        (MLP((2,), blocks=2), (2,), ["stem", "block 1", "block 2", "out"]),
        (CNN(width=8, blocks=2), (1, 8, 8),
         ["stem", "block 1", "block 2", "norm out", "conv out"]),
        (TinyNet(None), SHAPE, ["inner", "table", "outer"]),
    ],
)  # fmt: skip
def test_other_networks_are_columns(net: torch.nn.Module, shape: tuple, names: list[str]) -> None:
    plan = plan_of(net.eval(), shape, None)
    assert [part.name for part in plan.down] == names and plan.middle is None
    parts = [*plan.down, *([plan.beside] if plan.beside else [])]
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in net.parameters())


def test_the_diagram_is_drawn(tmp_path: Path) -> None:
    for n, module in enumerate((tiny_module(), points_module())):
        picture = Image.open(ArchitectureFigure(file=f"{n}.png").write(module, tmp_path))
        assert picture.mode == "RGB" and np.asarray(picture).std() > 5

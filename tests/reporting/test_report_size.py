"""A long run with everything in it still makes a page that can be sent by mail."""

import json

import numpy as np
import torch
from page_tags import Tags, write_pages
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from diffusion_lab.figures.grids import save_grid
from diffusion_lab.reporting.html import write_report

EPOCHS, STEPS, MOMENTS = 20, 9000, 20


def digits(count: int, seed: int) -> torch.Tensor:
    """Digits with the grey noise that samples have, (count, 1, 28, 28) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    images = torch.tensor(load_digits().images[rng.integers(0, 1797, count)]).unsqueeze(1) / 8 - 1
    large = interpolate(images.float(), (28, 28), mode="bicubic")
    return (large + 0.05 * torch.tensor(rng.normal(size=large.shape)).float()).clamp(-1, 1)


def write_run(folder):
    for epoch in range(1, EPOCHS + 1):
        save_grid(folder / "samples" / f"epoch_{epoch:03d}.png", digits(100, epoch), scale=2)
    names = [f"samples/denoising/step_{k:04d}.png" for k in range(MOMENTS - 1, -1, -1)]
    noise = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for k, name in enumerate(names):
        share = k / (MOMENTS - 1)
        save_grid(folder / name, share * digits(20, 0) + (1 - share) * noise, columns=10, scale=2)
    write_pages(folder, {"name": "denoising", "files": names})
    metrics = ["train/loss", "train/lr", "train/grad_norm", "train/images_per_second", "val/loss"]
    metrics += [f"val/loss_by_level/{k}0-{k + 1}0" for k in range(10)]
    lines = [",".join(["step", "epoch", *metrics])]
    for step in range(49, STEPS, 50):
        values = [repr(1 / (step + k)) for k in range(len(metrics))]
        lines.append(",".join([str(step), str(step // 450), *values]))
    (folder / "metrics.csv").write_text("\n".join(lines))
    figures = {f"{n}{e}": 0.5 for n in ("fd", "recall") for e in ("", "_low", "_high", "_real")}
    figures["confusion"] = (torch.eye(10) * 100).tolist()
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "config.yaml").write_text("key: value\n" * 200)
    rows = [{"row": f"row {k}", "fd": 1.0 / (k + 1), "seconds": k} for k in range(20)]
    (folder / "studies").mkdir()
    (folder / "studies" / "study.json").write_text(json.dumps({"study": "x", "table": rows}))
    for name in ("metrics_nearest.png", "studies/figure.png", "studies/samples.png"):
        save_grid(folder / name, digits(200, 1), columns=20, scale=1)


def test_a_run_of_twenty_epochs_stays_below_five_megabytes(tmp_path):
    write_run(tmp_path)
    grid = tmp_path / "samples" / "epoch_001.png"
    assert grid.stat().st_size > 60_000, "grids of this test are as large as those of samples"
    page = write_report(tmp_path)
    tags = Tags(page.read_text())
    assert len(tags.of("img")) == EPOCHS + MOMENTS + 3
    assert page.stat().st_size < 5_000_000

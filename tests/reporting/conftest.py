import json

import pytest
import torch

from diffusion_lab.figures.grids import save_grid


@pytest.fixture
def run_folder(tmp_path):
    """A folder such as a training run leaves."""
    folder = tmp_path / "run"
    for epoch in (1, 2, 3):
        images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(epoch)) * 2 - 1
        save_grid(folder / "samples" / f"epoch_{epoch:03d}.png", images)
    (folder / "config.yaml").write_text("seed: 0\nschedule:\n  steps: 300\n")
    (folder / "overrides.txt").write_text("experiment=cfg_guidance\nschedule.steps=300\n")
    summary = {
        "status": "finished",
        "steps": 60,
        "images_per_second": 812.345678,
        "metrics": {"val/loss": 0.21},
        "data": {"name": "mnist", "fallback": None},
        "versions": {"torch": "2.15.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [f"{k},0,{1 / (k + 1)}," for k in range(60)] + ["59,0,,0.21"]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,val/loss", *rows]) + "\n")
    return folder

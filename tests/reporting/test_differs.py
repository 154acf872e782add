"""What a run notes of its config that the default recipe does not have."""

import json

from diffusion_lab.config.arguments import compose
from diffusion_lab.runs.differences import differences
from diffusion_lab.runs.folder import open_run


def test_what_was_chosen_comes_first_then_keys_and_no_places(tmp_path):
    typed = ["budget=smoke", "sampler=ddim", "optimizer.lr=0.5", f"paths.output_dir={tmp_path}"]
    cfg = compose("train", typed)
    choices = {"budget": "smoke", "sampler": "ddim", "denoiser": "unet", "paths": "default"}
    assert differences(cfg, choices) == [
        ("sampler", "euler", "ddim"),
        ("optimizer.lr", 0.002, 0.5),
    ]
    again = compose("train", ["budget=smoke"])
    assert differences(again, {}) == []


def test_opening_a_run_writes_them_down(tmp_path):
    cfg = compose("train", ["budget=smoke", "seed=3", f"run_dir={tmp_path}/run"])
    folder = open_run(cfg)
    assert json.loads((folder / "differs.json").read_text()) == [["seed", 0, 3]]

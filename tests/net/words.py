"""What the net types on the command line; nothing is imported here that takes time."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
"""The folder of the record and of the stored checkpoints."""

SMALL = [
    "budget=smoke", "trainer=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=1", "model.level_images=20", "data.eval_batch_size=50",
    "logger=none", "callbacks.samples=null", "callbacks.artefacts=null",
    "callbacks.final_samples=null", "callbacks.record.report=false",
    "paths.data_dir=data", "paths.output_dir=outputs",
]  # fmt: skip
"""Small and quick on a processor, without pictures, with every loss in metrics.csv."""

DIGITS = ["data=digits", "data.batch_size=16"]

PRESETS: dict[str, list[str]] = {
    "seed_000": DIGITS,
    "seed_001": [*DIGITS, "denoiser.base_channels=16"],
    "seed_002": [*DIGITS, "denoiser.base_channels=16"],
    # Adam makes steps of the rate out of rounding, where batch norm leaves a bias no gradient.
    "seed_003": [*DIGITS, "denoiser.base_channels=16", "optimizer.lr=1e-4"],
    "seed_003_moons": ["data.batch_size=64"],
    "seed_004": [*DIGITS, "denoiser.base_channels=16"],
    "cfg_guidance": [*DIGITS, "denoiser.base_channels=24"],
    "edm": [*DIGITS, "denoiser.base_channels=24"],
}
"""What is typed beside `experiment=NAME` and `SMALL`; twenty steps of training each."""

_TINY = [
    *SMALL, *DIGITS, "trainer.max_epochs=-1", "trainer.limit_train_batches=9",
    "trainer.val_check_interval=4", "lr_scheduler.warmup_steps=4",
]  # fmt: skip
_TINY_UNET = [
    "denoiser=unet", "denoiser.base_channels=4", "denoiser.multipliers=[1]", "denoiser.heads=1",
    "denoiser.middle_blocks=1", "denoiser.time_dim=8", "denoiser.patch=4",
    "denoiser.norm.groups=1", "model.label_dropout=0.3",
]  # fmt: skip

STORED: dict[str, list[str]] = {
    "format_1": ["experiment=cfg_guidance", *_TINY, *_TINY_UNET],
    "format_1_learned": [
        "experiment=cfg_guidance", *_TINY, *_TINY_UNET, "schedule=cosine", "schedule.steps=40",
        "parameterization=eps", "sampler=ddpm", "denoiser.self_conditioning=true",
        "denoiser.learned_variance=true", "objective.bound_weight=0.001",
        "objective/time=importance", "objective.time.bins=4", "objective.time.history=2",
    ],
    "format_1_classifier": [
        "experiment=noisy_classifier", *_TINY, "denoiser.base_channels=4",
        "denoiser.multipliers=[1,1]", "denoiser.time_dim=8", "denoiser.norm.groups=1",
    ],
}  # fmt: skip
"""What was typed for the run after whose sixth step each stored checkpoint was written."""

STORED_AT, END = 6, 12
"""Steps at which a stored checkpoint was written and at which its run ends."""

"""Commands as they are typed, in this process."""

import numpy as np

from diffusion_lab.config.arguments import compose

TINY = [
    "budget=smoke", "trainer=cpu", "logger=none", "trainer.precision=32-true", "trust=[toy_data]",
    "data.batch_size=64", "data.eval_batch_size=64", "data.validation_size=64",
    "callbacks.samples.num_samples=4", "callbacks.record.report=false", "sampler.steps=8",
]  # fmt: skip
LONG = [
    "trainer.max_epochs=-1", "trainer.max_steps=400", "trainer.limit_train_batches=1.0",
    "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=200",
    "callbacks.ema.decay=0.98", "optimizer.lr=3e-3", "lr_scheduler.warmup_steps=10",
]  # fmt: skip
POINTS = [
    "data=moons", "data._target_=toy_data.Rounded", "data.train_size=5000", "data.test_size=2000",
    "~data.noise", "denoiser=mlp", "denoiser.width=64", "denoiser.blocks=2", "denoiser.time_dim=32",
]  # fmt: skip
IMAGES = [
    "data=digits", "data._target_=toy_data.Halves", "data.shape=[1,4,4]", "data.num_classes=null",
    "data.mean=0", "data.std=0.63", "denoiser=cnn", "denoiser.width=16", "denoiser.blocks=1",
    "denoiser.time_dim=32",
]  # fmt: skip


def trained(folder, *words):
    from diffusion_lab.train import train

    train(compose("train", [*TINY, *words, f"run_dir={folder}"]))
    return folder


def drawn(run, out, *words):
    from diffusion_lab.sample import sample

    typed = [f"ckpt={run}", f"out={out}", "device=cpu", "trust=[toy_data]", *words]
    sample(compose("sample", typed))
    return np.load(out)["samples"] if str(out).endswith("npz") else out

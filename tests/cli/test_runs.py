"""From the command to its files: train, resume, sample, sweep."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.composing import CONF
from diffusion_lab.errors import ConfigError

TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none",
    "denoiser.base_channels=8", "denoiser.heads=2", "data.batch_size=8",
    "data.eval_batch_size=16", "sampler.steps=2", "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "callbacks.samples.num_samples=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from diffusion_lab.train import train

    folder = tmp_path_factory.mktemp("train") / "run with = and space"
    train(compose("train", [*TINY, f"run_dir={folder}"]))
    return folder


def test_the_run_folder_holds_what_the_contract_says(run):
    files = ["config.yaml", "overrides.txt", "summary.json", "metrics.csv", "report.html"]
    files += ["checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/epoch_001.png"]
    for name in files:
        assert (run / name).is_file(), name
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"


def test_a_run_folder_is_not_used_twice(run):
    from diffusion_lab.train import train

    with pytest.raises(ConfigError, match="resume=auto"):
        train(compose("train", [*TINY, f"run_dir={run}"]))


def drawn(run, out, *words):
    from diffusion_lab.sample import sample

    return sample(compose("sample", [f"ckpt={run}", f"out={out}", "device=cpu", *words]))


def test_the_stored_choices_stand_in_front(run):
    cfg = compose("sample", [f"ckpt={run}"])
    assert cfg.sampler.steps == 2 and cfg.ckpt.endswith("last.ckpt")
    cfg = compose("sample", [f"ckpt={run}", "sampler.steps=5", "grid@sampler.grid=leading"])
    assert cfg.sampler.steps == 5 and cfg.sampler.grid._target_.endswith("Leading")
    cfg = compose("sample", [f"ckpt={run}", "sampler=ddpm", "guidance=none"])
    assert cfg.sampler._target_.endswith("DDPM") and cfg.guidance.scale == 1.0


def test_image_k_does_not_depend_on_the_batch(run, tmp_path):
    both = []
    for size in (3, 7):
        drawn(run, tmp_path / f"{size}.npz", "num_samples=7", f"batch_size={size}", "label=[3,8]",
              "sampler=ddpm", "sampler.steps=3")  # fmt: skip
        both.append(np.load(tmp_path / f"{size}.npz"))
    assert both[0]["samples"].dtype == np.float32 and both[0]["samples"].shape == (7, 1, 28, 28)
    assert both[0]["labels"].tolist() == [3, 8, 3, 8, 3, 8, 3]
    np.testing.assert_allclose(both[0]["samples"], both[1]["samples"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["label=7", "num_samples=3"], [7, 7, 7]),
        (["label=all", "num_samples=12"], [*range(10), 0, 1]),
        (["label=null", "num_samples=2", "weights=raw"], [-1, -1]),
    ],
)
def test_labels(run, tmp_path, words, labels):
    arrays = np.load(drawn(run, tmp_path / "a.npz", *words))
    assert arrays["labels"].tolist() == labels and np.isfinite(arrays["samples"]).all()


def test_pictures(run, tmp_path):
    wide = Image.open(drawn(run, tmp_path / "g.png", "num_samples=20"))
    assert wide.width > 4 * wide.height
    strip = Image.open(drawn(run, tmp_path / "s.png", "num_samples=2", "strip=2"))
    assert strip.height > strip.width
    for ending in ("gif", "webp"):
        film = Image.open(drawn(run, tmp_path / f"f.{ending}", "num_samples=2", "sampler.steps=4"))
        assert film.n_frames == 5


def test_every_fault_of_a_request_in_one_message(run, tmp_path):
    words = ["label=10", "num_samples=0", "weights=eam", "sampler.steps=0", "strip=-1"]
    with pytest.raises(ConfigError) as caught:
        drawn(run, tmp_path / "x.jpg", *words)
    for key in ("label=10", "num_samples=0", "weights=eam", "sampler.steps=0", "strip=-1", "out="):
        assert key in str(caught.value)


def typed(command, *words, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"diffusion_lab.{command}", *words],
        capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip


def test_resume_auto_goes_on_with_the_newest_unfinished_run(run, tmp_path):
    import shutil

    home = tmp_path / "outputs" / "quickstart" / "broken"
    shutil.copytree(run, home)
    summary = json.loads((home / "summary.json").read_text()) | {"status": "interrupted"}
    (home / "summary.json").write_text(json.dumps(summary))
    (home / "overrides.txt").write_text("\n".join([*TINY, "callbacks.record.report=false"]))
    words = ("experiment=quickstart", "resume=auto", "trainer.max_epochs=2")
    done = typed("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from step 2" in done.stdout
    assert json.loads((home / "summary.json").read_text())["step"] == 4
    again = typed("train", "experiment=quickstart", "resume=auto", cwd=tmp_path)
    assert again.returncode == 2 and "no unfinished run" in again.stderr


def test_resume_auto_begins_anew_where_nothing_was_saved(tmp_path):
    """A script that is submitted again must get over a run that died before its first save."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    words = [*TINY, "callbacks.record.report=false", "run_dir=run"]
    assert "holds a run already" in typed("train", *words, cwd=tmp_path).stderr
    done = typed("train", *words, "resume=auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Nothing to resume" in done.stdout and "Done: 2 steps" in done.stdout


def test_the_conf_folder_is_ours():
    assert (CONF / "train.yaml").is_file()

"""``python -m diffusion_lab.bench``, with a network that takes no time."""

import json

import pytest

from diffusion_lab.bench import bench
from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError

QUICK = ["experiment=quickstart", "data.batch_size=16", "denoiser.base_channels=16"]
QUICK += ["bench.steps=2", "bench.rounds=2", "bench.warmup=1", "bench.num_samples=2"]
QUICK += ["bench.sample_rounds=1", "sampler.steps=2", "trainer.accelerator=cpu"]


def test_it_writes_what_it_measured(tmp_path, capsys):
    out = tmp_path / "bench.json"
    record = bench(compose("bench", [*QUICK, f"bench.out={out}"]))
    assert json.loads(out.read_text()) == record
    assert record["batch_size"] == 16
    assert record["sampling_steps"] == 2
    positive = ["trainer_images_per_second", "bare_images_per_second", "trainer_over_bare"]
    assert all(record[key] > 0 for key in [*positive, "sampling_seconds"])
    assert "Trainer / bare loop" in capsys.readouterr().out
    assert "logger_share" not in record
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_what_a_logger_costs_is_told(tmp_path, capsys):
    pytest.importorskip("wandb")
    words = [*QUICK, "logger=wandb", "trainer.log_every_n_steps=1", "bench.rounds=3"]
    record = bench(compose("bench", [*words, f"bench.out={tmp_path / 'bench.json'}"]))
    assert -1 < record["logger_share"] < 100
    assert "logger, share of training" in capsys.readouterr().out


def test_all_faults_come_at_once():
    with pytest.raises(ConfigError) as error:
        bench(compose("bench", [*QUICK, "bench.rounds=0", "optimizer.lr=-1"]))
    assert "bench.rounds=0" in str(error.value)
    assert "optimizer.lr=-1" in str(error.value)

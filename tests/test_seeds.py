"""The five seed systems: their networks to the parameter, their numbers, what they leave behind."""

import pytest
import torch

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check

IMAGES = ["seed_000", "seed_001", "seed_002", "seed_003", "seed_004"]
BUDGETS = ["smoke", "cpu", "full"]


def network(experiment):
    return instantiate(compose("train", [f"experiment={experiment}", "budget=full"]).denoiser)


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("experiment", [*IMAGES, "seed_003_moons"])
def test_a_preset_is_sound_under_every_budget(experiment, budget):
    cfg = compose("train", [f"experiment={experiment}", f"budget={budget}"])
    assert check(cfg) == []
    assert cfg.name == experiment


@pytest.mark.parametrize(
    ("experiment", "count"),
    [
        ("seed_000", 357_795),
        ("seed_001", 2_200_513),
        ("seed_002", 1_167_329),
        ("seed_003", 858_305),
        ("seed_003_moons", 46_082),
        ("seed_004", 1_400_225),
    ],
)
def test_parameters(experiment, count):
    assert size(network(experiment)) == count


def shapes(net, label=None):
    """Output (channels, side) of every stage, in the order in which they run."""
    seen = []
    for part in [net.stem, *net.encoder, net.middle, *net.decoder, net.conv_out]:
        part.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:3])))
    x = torch.zeros(1, 1, 28, 28)
    net(x, *net.condition_inputs(x, torch.zeros(1), label))
    return seen


def test_seed_000_is_as_its_table_says():
    net = network("seed_000")
    widths = [(16, 28), (32, 14), (64, 7), (32, 14), (16, 28), (1, 28)]
    assert shapes(net) == [(1, 28), *widths]
    stages = [*net.encoder, net.middle, *net.decoder]
    reads = [[block.conv1.in_channels for block in stage.blocks] for stage in stages]
    assert reads == [[1, 16], [32, 32], [64, 64], [64, 32], [32, 16]]
    told = [[block.condition is not None for block in stage.blocks] for stage in stages]
    assert told == [[True, False]] * 5
    attended = [[hasattr(a, "qkv") for a in stage.attentions] for stage in stages]
    assert attended == [[False, False], [False, True]] + [[False, False]] * 3
    assert net.conv_out.kernel_size == (1, 1)
    assert net.encoder[0].blocks[0].norm1.num_groups == 1


def test_seed_001_has_eleven_labels():
    net = network("seed_001")
    assert net.embed.table.weight.shape == (11, 128)
    assert net.stem.out_channels == 64


def test_seed_003_part_by_part():
    net = network("seed_003")
    parts = [net.stem, *net.encoder, net.middle, *net.decoder, net.conv_out]
    counts = [320, 63_936, 238_464, 312_192, 192_960, 50_400, 33]
    assert [size(part) for part in parts] == counts
    assert size(net.embed) == 0
    assert shapes(net)[1:3] == [(64, 28), (128, 14)]


def test_seed_004_part_by_part():
    net = network("seed_004")
    assert size(net.embed) == 131_712
    assert size(net.norm_out) + size(net.conv_out) == 353
    assert shapes(net)[1:3] == [(64, 28), (128, 14)]
    assert [hasattr(a, "qkv") for a in net.middle.attentions] == [True, False]
    assert net.norm_out.num_groups == 8


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("seed_000", {"data.batch_size": 64, "trainer.max_epochs": 100}),
        (
            "seed_001",
            {"schedule.steps": 1000, "optimizer.lr": 2e-4, "optimizer.weight_decay": 1e-4,
             "trainer.gradient_clip_val": 1.0, "data.batch_size": 128, "trainer.max_epochs": 5,
             "model.label_dropout": 0.1, "lr_scheduler.final_fraction": 1.0},
        ),
        (
            "seed_002",
            {"schedule.steps": 300, "schedule.beta_start": 1e-4, "schedule.beta_end": 0.02,
             "schedule.scaled": False, "optimizer.lr": 2e-4, "trainer.max_epochs": 20,
             "data.num_classes": None, "callbacks.ema": None},
        ),
        (
            "seed_003",
            {"schedule.steps": 1000, "optimizer.lr": 1e-3, "trainer.max_steps": 100_000,
             "callbacks.ema": None, "optimizer.weight_decay": 0.0},
        ),
        (
            "seed_004",
            {"schedule.steps": 1000, "optimizer.lr": 1e-4, "callbacks.ema": None,
             "model.clip_samples": True, "constraint": {}},
        ),
    ],
)  # fmt: skip
def test_the_numbers_of_a_document_under_the_full_budget(experiment, expected):
    from omegaconf import OmegaConf

    cfg = compose("train", [f"experiment={experiment}", "budget=full"])
    assert {key: OmegaConf.select(cfg, key) for key in expected} == expected


@pytest.mark.parametrize("experiment", IMAGES)
def test_the_cpu_budget_keeps_network_schedule_and_target(experiment):
    cpu, full = (compose("train", [f"experiment={experiment}", f"budget={b}"]) for b in BUDGETS[1:])
    for node in ("denoiser", "schedule", "parameterization", "objective", "data", "guidance"):
        assert cpu[node] == full[node], node


ARTEFACTS = {
    "seed_000": ["results.png", "samples/epoch_001.png"],
    "seed_001": [
        "progress.png", "denoising_steps/strip.png", "denoising_steps/step_1000.png",
        "digit_7_grid.png", "digit_3.png", "all_digits.png", "unconditional.png",
        "conditional.png", "models/last.ckpt", "generated_samples/epoch_001.png",
    ],
    "seed_002": [
        "checkpoints/model_latest.pth", "samples/epoch_001.png", "samples/generated.png",
        "samples/generated_ddpm_full.png", "samples/generated_ddim_50.png",
        "samples/generated_ddim_20.png",
    ],
    "seed_003": ["CNNDenoiserMNIST.png", "progress.png", "checkpoints/best.ckpt"],
    "seed_003_moons": ["samples.png", "vector_field.png", "trajectories.png"],
    "seed_004": ["samples_16.png", "samples_64.png"],
}  # fmt: skip
QUICK = [
    "budget=smoke", "trainer=cpu", "logger=none", "data.batch_size=4", "sampler.steps=2",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "trainer.log_every_n_steps=1", "callbacks.samples.num_samples=10",
    "callbacks.record.report=false",
]  # fmt: skip
LESS = {
    "seed_001": [
        "callbacks.artefacts.pages.digit_7_grid.num_samples=4",
        "callbacks.artefacts.pages.all_digits.num_samples=4",
        "callbacks.artefacts.pages.conditional.num_samples=4",
    ],
    "seed_002": [
        "callbacks.artefacts.pages.ddpm_full.sampler.steps=3",
        "callbacks.artefacts.pages.ddim_50.sampler.steps=3",
    ],
}


@pytest.mark.parametrize("experiment", list(ARTEFACTS))
def test_every_artefact_that_a_document_names_is_left_behind(experiment, tmp_path):
    from diffusion_lab.train import train

    words = [f"experiment={experiment}", *QUICK, *LESS.get(experiment, [])]
    if experiment in IMAGES:
        words += [f"paths.data_dir={tmp_path / 'none'}", "data.download=false"]
        words += ["data.validation_size=100", "data.eval_batch_size=4"]
    run = tmp_path / "run"
    train(compose("train", [*words, f"run_dir={run}"]))
    missing = [name for name in ARTEFACTS[experiment] if not (run / name).exists()]
    assert not missing, sorted(str(path.relative_to(run)) for path in run.rglob("*"))

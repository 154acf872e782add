"""The likelihood command on runs of two steps, and what it is made of on exact models."""

import json
import math
import statistics

import pytest
import torch
from PIL import Image
from torch import nn

from diffusion_lab.config.arguments import compose
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.gaussian import levels
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import X0
from diffusion_lab.diffusion.schedules import RectifiedFlow
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.likelihood_summary import classifier_accuracy, separation, summary
from diffusion_lab.evaluation.likelihoods import (
    BoundScore,
    FlowScore,
    class_scores,
    terms_of,
    totals,
)
from diffusion_lab.likelihood import likelihood
from diffusion_lab.sampling.ode import RK4
from diffusion_lab.sampling.ode_likelihood import flow_path
from diffusion_lab.sampling.sample_noise import SampleNoise
from diffusion_lab.sampling.spacing import UniformLogSNR
from diffusion_lab.train import train

TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none",
    "denoiser.base_channels=8", "denoiser.heads=2", "data.batch_size=8",
    "data.eval_batch_size=16", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    "trainer.precision=32-true", "trainer.max_epochs=1", "callbacks.samples=null",
    "callbacks.record.report=false",
]  # fmt: skip
QUICK = ["num_images=6", "steps=4", "device=cpu", "paths.data_dir=none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood") / "run"
    train(compose("train", [*TINY, f"run_dir={folder}"]))
    return folder


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood") / "moons"
    words = ["experiment=seed_003_moons", "budget=smoke", "trainer=cpu", "logger=none"]
    words += ["trainer.max_steps=2", "callbacks.record.report=false"]
    train(compose("train", [*words, f"run_dir={folder}"]))
    return folder


def asked(run, *words):
    return likelihood(compose("likelihood", [f"ckpt={run}", *QUICK, *words]))


def added_up(found):
    return sum(part["mean"] for part in found["split"].values())


def test_the_bound_is_told_split_and_written(run, capsys):
    found = asked(run)
    shown = capsys.readouterr().out
    written = json.loads((run / "likelihood.json").read_text())
    assert Image.open(run / "likelihood.png").width > 500
    assert written["mean"] == found["mean"] and written["settings"]["method"] == "bound"
    assert found["unit"] == "bits/dim" and found["num_images"] == 6
    assert found["low"] < found["mean"] < found["high"]
    assert added_up(found) == pytest.approx(found["mean"], rel=1e-9)
    assert {"prior", "t 0-0.1", "t 0.9-1", "reconstruction"} <= set(found["split"])
    assert len(found["split"]) == 12
    assert "network calls" in shown and "bits/dim" in shown and "reconstruction" in shown
    assert str(run / "likelihood.json") in shown


def test_a_bound_does_not_depend_on_the_batch_and_does_on_seed_and_class(run, tmp_path):
    words = ["end=null", f"out={tmp_path / 'x.json'}"]
    whole, split = asked(run, *words), asked(run, *words, "batch_size=4")
    assert split["mean"] == pytest.approx(whole["mean"], rel=1e-5)
    assert len(whole["steps"]) == 3, "the last of four is the reconstruction"
    assert asked(run, *words, "seed=1")["mean"] != pytest.approx(whole["mean"], rel=1e-6)
    assert asked(run, *words, "label=null")["mean"] != pytest.approx(whole["mean"], rel=1e-9)
    assert asked(run, *words, "variance=large")["mean"] != pytest.approx(whole["mean"], rel=1e-6)
    ended = asked(run, "end=0.9", f"out={tmp_path / 'x.json'}")
    assert len(ended["steps"]) < 3 and (tmp_path / "x.png").is_file()


def test_the_ode_has_a_dequantisation(run, tmp_path):
    words = ["method=ode", "steps=2", "num_images=2", f"out={tmp_path / 'x.json'}"]
    found = asked(run, *words)
    assert found["split"]["dequantisation"]["mean"] == pytest.approx(math.log2(127.5))
    assert added_up(found) == pytest.approx(found["mean"], rel=1e-9)
    assert "reconstruction" not in found["split"] and len(found["steps"]) == 2
    adaptive = asked(run, *words, "tolerance=0.5")
    assert adaptive["unit"] == "bits/dim" and adaptive["mean"] != found["mean"]


def test_foreign_data_and_classes_are_told(run, tmp_path, capsys):
    found = asked(run, "against=digits", "classify=true", f"out={tmp_path / 'x.json'}")
    assert found["against"]["data"] == "digits"
    assert found["separation"]["auroc"] == 0.5, "it is the data of the run"
    assert found["against"]["mean"] == found["mean"]
    assert 0 <= found["classifier"]["low"] <= found["classifier"]["accuracy"] <= 1
    shown = capsys.readouterr().out
    assert "AUROC" in shown and "of classes" in shown


def test_points_are_scored_in_nats(moons, tmp_path):
    bound = asked(moons, "num_images=20", f"out={tmp_path / 'x.json'}")
    words = ["method=ode", "probes=null", "steps=4", f"out={tmp_path / 'y.json'}"]
    ode = asked(moons, *words)
    assert bound["unit"] == ode["unit"] == "nats/dim"
    assert "dequantisation" not in ode["split"] and added_up(ode) == pytest.approx(ode["mean"])


def test_what_cannot_run_is_refused(run, moons):
    for words, message in [
        (["method=elbo"], r"method=elbo must be one of bound, ode"),
        (["num_images=1"], r"num_images=1 .*at least 2"),
        (["steps=0"], r"steps=0 .*at least 1"),
        (["variance=learned"], r"variance=learned.*learned_variance=true"),
        (["variance=medium"], r"variance=medium must be one of null, small, large, learned"),
        (["method=ode", "variance=small"], r"an ODE has no noise"),
        (["method=ode", "end=0.1"], r"end=0\.1"),
        (["method=ode", "steps=1"], r"steps=1 must be at least 2"),
        (["tolerance=0.1"], r"tolerance=0\.1: the bound has no solver"),
        (["end=2"], r"end=2 must be a number above 0 and at most 1"),
        (["against=digitz"], r"against=digitz must be one of .*did you mean digits"),
        (["against=moons"], r"against=moons: its samples have the shape \[2\]"),
        (["label=7"], r"label=7 must be one of data, null"),
        (["grid=repaint"], r"must fall; use grid=log_snr"),
        (["method=elbo", "num_images=1"], r"(?s)2 errors.*method.*num_images"),
        (["device=cuba"], r"device=cuba"),
    ]:
        with pytest.raises(ConfigError, match=message):
            asked(run, *words)
    with pytest.raises(ConfigError, match=r"classify=true.*without classes"):
        asked(moons, "classify=true")
    with pytest.raises(ConfigError, match="likelihood needs ckpt=PATH"):
        likelihood(compose("likelihood"))


def test_a_class_that_was_never_dropped_must_be_told(tmp_path):
    words = ["model.label_dropout=0", f"run_dir={tmp_path / 'run'}"]
    train(compose("train", [*TINY, *words]))
    with pytest.raises(ConfigError, match=r"label=null.*label_dropout=0.*label=data"):
        asked(tmp_path / "run", "label=null")


def test_a_learned_variance_and_self_conditioning_are_used(tmp_path):
    words = ["schedule=linear", "schedule.steps=30", "parameterization=eps", "sampler=ddpm"]
    words += ["denoiser.learned_variance=true", "denoiser.self_conditioning=true"]
    words += ["objective.bound_weight=0.001", f"run_dir={tmp_path / 'run'}"]
    train(compose("train", [*TINY, *words]))
    with pytest.raises(ConfigError, match=r"steps=100 must be at least 1 and at most 30"):
        asked(tmp_path / "run", "steps=100")
    words = ["steps=null", "end=null", "num_images=3"]
    learned = asked(tmp_path / "run", *words)
    assert len(learned["steps"]) == 29 and learned["unit"] == "bits/dim"
    assert asked(tmp_path / "run", *words, "variance=learned")["mean"] == learned["mean"]
    small, large = (asked(tmp_path / "run", *words, f"variance={v}") for v in ("small", "large"))
    assert len({small["mean"], large["mean"], learned["mean"]}) == 3


# ---------------------------------------------------------------- on exact models


class Clusters(nn.Module):
    """The optimal x0-hat of class k ~ N(2 k - 1, std^2), and of an unknown class N(0, 1)."""

    num_classes = 2

    def __init__(self, schedule, std=0.3):
        super().__init__()
        self.schedule, self.std = schedule, std

    def forward(self, x, c_noise, label=None):
        level = self.schedule(c_noise.double() / 1000)
        alpha, sigma = (part[:, None].to(x) for part in (level.alpha, level.sigma))
        mean = torch.zeros_like(x) if label is None else (2.0 * label - 1)[:, None].to(x)
        std = 1.0 if label is None else self.std
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return mean + gain * (x - alpha * mean)


@pytest.fixture
def clusters():
    schedule = RectifiedFlow()
    model = GaussianDiffusion(Clusters(schedule), schedule, X0()).double()
    labels = torch.arange(60) % 2
    generator = torch.Generator().manual_seed(0)
    x0 = (2.0 * labels - 1)[:, None] + 0.3 * torch.randn(60, 4, generator=generator)
    path = levels(schedule(UniformLogSNR()(schedule, 60)))
    return BoundScore(model, path, False, variance=1.0), x0.double(), labels


def test_the_model_is_a_classifier(clusters):
    score, x0, labels = clusters
    scores = class_scores(score, x0, 2, seed=0, batch_size=25)
    assert scores.shape == (60, 2)
    assert classifier_accuracy(scores, labels)["accuracy"] == 1.0
    assert classifier_accuracy(scores, 1 - labels)["accuracy"] == 0.0
    twins = class_scores(
        BoundScore(_Blind(score.model), score.path, False, variance=1.0), x0, 2, 0, batch_size=25
    )
    assert torch.equal(twins[:, 0], twins[:, 1]), "the same noise for all classes"


class _Blind:
    """A model that does not look at the class."""

    def __init__(self, model):
        self.model, self.prior = model, model.prior

    def __call__(self, query):
        return self.model(query._replace(given=Condition()))


def test_bound_and_ode_of_an_exact_model_agree_with_its_density(clusters):
    score, x0, labels = clusters
    flow = FlowScore(
        score.model, flow_path(RectifiedFlow(), 60), False, solver=RK4, probes=None
    )  # fmt: skip
    density = torch.distributions.Normal((2.0 * labels - 1)[:, None].double(), 0.3)
    exact = -density.log_prob(x0).mean(1)
    ode = totals(flow, terms_of(flow, x0, labels, 0, 60))
    assert torch.allclose(ode, exact, atol=1e-3)
    bound = totals(score, terms_of(score, x0, labels, 0, 7))
    gap = bound - exact
    assert -3 * float(gap.std()) / 60**0.5 < float(gap.mean()) < 0.5
    unaware = totals(flow, terms_of(flow, x0, None, 0, 60))
    assert float(unaware.mean()) > float(ode.mean()), "the class says something"


def test_a_summary_adds_up_and_counts_its_error(clusters):
    score, x0, labels = clusters
    terms = terms_of(score, x0, labels, 0, 60)
    found = summary(score, terms)
    whole = terms.sum(1).tolist()
    assert found["mean"] == pytest.approx(statistics.mean(whole), rel=1e-9)
    assert found["se"] == pytest.approx(statistics.stdev(whole) / 60**0.5, rel=1e-9)
    assert found["high"] - found["mean"] == pytest.approx(1.959964 * found["se"], rel=1e-6)
    late = sum(part["mean"] for name, part in found["split"].items() if name == "t 0-0.1")
    own = [step["mean"] for step in found["steps"] if step["t"] <= 0.1]
    assert late == pytest.approx(sum(own), rel=1e-9)
    with pytest.raises(ValueError, match="diverged"):
        terms_of(score, x0 * math.nan, labels, 0, 60)


def test_the_tightest_end_is_no_worse_than_the_cleanest(clusters):
    """A network that knows nothing below t = 0.1 is better ended there."""
    score, x0, labels = clusters

    class Lost(_Blind):
        def __call__(self, query):
            found = self.model(query)
            return found if float(query.at.t) >= 0.1 else found._replace(x0=found.x0 + 0.5)

    lost = BoundScore(Lost(score.model), score.path, False, variance=1.0)
    ended = lost.tightest(x0, labels, SampleNoise(0, 0, 60))
    assert float(ended.path[-2].t) >= 0.1 and not float(ended.path[-1].sigma)
    means = [float(totals(s, terms_of(s, x0, labels, 0, 60)).mean()) for s in (lost, ended)]
    assert means[1] < means[0]
    assert float(score.tightest(x0, labels, SampleNoise(0, 0, 60)).path[-2].t) < 0.1
    assert len(score.ended(2.0).path) == 2 and score.ended(0.0).path == list(score.path)
    assert summary(score.ended(2.0), terms_of(score.ended(2.0), x0, labels, 0, 60))["mean"] > 0


def test_separation_is_the_probability_of_a_higher_score():
    own, foreign = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    found = separation(own, foreign)
    assert found["auroc"] == pytest.approx((3 + 2.5 + 1.5) / 9)
    assert 0 <= found["low"] < found["auroc"] < found["high"] <= 1
    assert separation(own, own + 5) == {"auroc": 1.0, "low": 1.0, "high": 1.0}


def test_the_interval_of_separation_covers():
    """Of normals one standard deviation apart the area is Phi(1 / sqrt 2)."""
    truth = statistics.NormalDist().cdf(1 / math.sqrt(2))
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        own, foreign = torch.randn(2, 50, generator=generator)
        found = separation(own, foreign + 1)
        covered += found["low"] <= truth <= found["high"]
    assert 0.91 <= covered / 400 <= 0.98


def test_accuracy_has_wilsons_interval():
    labels = torch.zeros(10, dtype=torch.long)
    scores = torch.tensor([[0.0, 1.0]]).repeat(10, 1)
    found = classifier_accuracy(scores, labels)
    assert found["accuracy"] == 1.0 and found["high"] == pytest.approx(1.0)
    assert found["low"] == pytest.approx(0.7225, abs=1e-4)

"""What `likelihood` computes: checked, and built from the checkpoint's model and data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check
from diffusion_lab.config.composing import options, unset
from diffusion_lab.config.messages import nearest
from diffusion_lab.config.rules import Rule, expectations, shown
from diffusion_lab.config.words import quoted
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.request import data_of, plain

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lab.config.composing import DictConfig
    from diffusion_lab.evaluation.likelihoods import Score
    from diffusion_lab.generate.trained_model import TrainedModel

LIKELIHOOD_RULES: dict[str, Rule] = {
    "method": "Literal['bound', 'ode']",
    "num_images": "Annotated[int, Ge(2)]",
    "steps": "Count | None",
    "variance": "Literal[None, 'small', 'large', 'learned']",
    "draws": "Count",
    "probes": "Count | None",
    "tolerance": "Positive | None",
    "label": "Literal['data', None]",
    "classify": "bool",
    "batch_size": "Count",
}
"""Key of `conf/likelihood.yaml` -> what its value must be, see `config.rules`."""
END = "Annotated[float, Gt(0), Le(1)] | None"
"""Of `end`, where it is not auto."""
ODE_STEPS = 50
"""Intervals of the ODE where `steps` is null."""
OWN = "test samples"
"""Name of the samples of the model's own data."""
TUNING = 20
"""Training samples on which the end of the bound is chosen."""
ADAPTIVE_CALLS = 20
"""About how often an adaptive solver calls the network in each of a few intervals."""


class Samples(NamedTuple):
    """What is scored, on the model's device.

    Attributes:
        x0: Test samples (N, *shape), evenly chosen.
        labels: Their classes (N,).
        grey: Whether they hold grey values of 8 bits.
        train: A few training samples, on which the end of the bound is chosen.
        train_labels: Their classes.
    """

    x0: Tensor
    labels: Tensor
    grey: bool
    train: Tensor
    train_labels: Tensor


def likelihood_errors(cfg: DictConfig, config: dict[str, Any]) -> list[str]:
    """Everything wrong with a request, against the training config of its checkpoint."""
    if "schedule" not in config or "parameterization" not in config:
        return [f"ckpt={cfg.ckpt} is no diffusion model: it has no likelihood"]
    keys = ("schedule", "parameterization", "denoiser")
    own = {key: plain(cfg[key]) for key in ("weights", "seed", "device", "grid", "data", "trust")}
    found = check({**{key: config[key] for key in keys if config.get(key)}, **own})
    rules = LIKELIHOOD_RULES if cfg.end == "auto" else LIKELIHOOD_RULES | {"end": END}
    typed = {key: plain(cfg[key]) for key in rules}
    expected = expectations([(key, typed[key], rule) for key, rule in rules.items()])
    found += [f"{key}={shown(typed[key])} must be {text}" for key, text in expected.items()]
    if cfg.against is not None and str(cfg.against) not in options("data"):
        names = options("data")
        hint = nearest(str(cfg.against), names)
        found.append(f"against={cfg.against} must be one of {', '.join(names)}{hint}")
    elif cfg.against is not None:
        lacking = unset(compose("likelihood", [f"data={cfg.against}"]).data)
        if lacking:
            found.append(
                f"against={cfg.against} needs {', '.join(lacking)}, which cannot be typed here; "
                "take other data"
            )
    found += _errors_of_classes(cfg, config)
    return found or _errors_of_method(cfg, config)


def _errors_of_classes(cfg: DictConfig, config: dict[str, Any]) -> list[str]:
    classes = (config.get("data") or {}).get("num_classes")
    if cfg.classify and classes is None:
        return [
            "classify=true: this model was trained without classes; take a run trained with "
            "them, e.g. experiment=cfg_guidance"
        ]
    dropout = (config.get("model") or {}).get("label_dropout", 0)
    if cfg.label is None and classes is not None and not dropout:
        return [
            "label=null: this model never saw images without their class "
            "(model.label_dropout=0); use label=data"
        ]
    return []


def _errors_of_method(cfg: DictConfig, config: dict[str, Any]) -> list[str]:
    """What does not fit the method, or the schedule."""
    from diffusion_lab.sampling.ode_likelihood import flow_path

    found = []
    learned = bool((config.get("denoiser") or {}).get("learned_variance"))
    if cfg.variance == "learned" and not learned:
        found.append(
            "variance=learned: this network learned none (denoiser.learned_variance=true); use "
            "variance=small or large"
        )
    if cfg.method == "ode" and cfg.variance is not None:
        found.append(f"variance={cfg.variance}: an ODE has no noise; leave it out")
    if cfg.method == "ode" and cfg.end not in ("auto", None):
        found.append(f"end={cfg.end}: the ODE ends at the cleanest trained level; leave it out")
    if cfg.method == "bound" and cfg.tolerance is not None:
        found.append(f"tolerance={cfg.tolerance}: the bound has no solver; leave it out")
    schedule = instantiate(config["schedule"], trust=cfg.trust)
    try:
        if cfg.method == "ode":
            flow_path(schedule, cfg.steps or ODE_STEPS)
        else:
            _bound_path(cfg, schedule)
    except ValueError as error:
        found.append(str(error).replace("sampler.", ""))
    return found


def _bound_path(cfg: DictConfig, schedule: Any) -> Any:
    from diffusion_lab.diffusion.gaussian import levels

    times = instantiate(cfg.grid, trust=cfg.trust)(schedule, cfg.steps)
    if not bool((times.diff() < 0).all()):
        raise ValueError("grid: the times of a bound must fall; use grid=log_snr or trailing")
    return levels(schedule(times))


def score_of(cfg: DictConfig, module: TrainedModel, samples: Samples) -> Score:
    """The score that a config describes; the end of a bound is chosen on training samples."""
    import torch

    from diffusion_lab.diffusion.conditions import Query
    from diffusion_lab.evaluation.likelihoods import BoundScore, FlowScore
    from diffusion_lab.sampling.adaptive import Adaptive
    from diffusion_lab.sampling.ode import RK4
    from diffusion_lab.sampling.ode_likelihood import flow_path
    from diffusion_lab.sampling.sample_noise import SampleNoise

    model, grey = module.diffusion, samples.grey
    if cfg.method == "ode":
        path = flow_path(model.schedule, cfg.steps or ODE_STEPS)
        score = FlowScore(
            model, path, grey, cfg.draws, solver=RK4, probes=cfg.probes, stages=len(RK4.nodes)
        )
        if cfg.tolerance is None:
            return score
        solver = partial(Adaptive, rtol=cfg.tolerance, atol=cfg.tolerance)
        return replace(score, solver=solver, stages=ADAPTIVE_CALLS)
    with torch.no_grad():
        denoised = model(Query(samples.train[:1], model.schedule(model.schedule.t_max)))
    learned = denoised.variance_fraction is not None
    name = cfg.variance or ("learned" if learned else "small" if grey else "large")
    fraction = {"small": 0.0, "large": 1.0, "learned": None}[name]
    path = _bound_path(cfg, model.schedule)
    bound = BoundScore(model, path, grey, cfg.draws, variance=fraction)
    if cfg.end != "auto":
        return bound.ended(cfg.end or 0.0)
    count = min(TUNING, len(samples.train))
    label = samples.train_labels[:count] if conditional(cfg, module) else None
    return bound.tightest(samples.train[:count], label, SampleNoise(cfg.seed, 0, count))


def conditional(cfg: DictConfig, module: TrainedModel) -> bool:
    """Whether the model is conditioned on each sample's class."""
    return cfg.label == "data" and module.num_classes is not None


def data_modules(cfg: DictConfig, stored: dict[str, Any]) -> dict[str, Any]:
    """The data modules that are scored, by name: that of the run, then the foreign one."""
    modules = {OWN: data_of(cfg, stored, "is scored on those")}
    if cfg.against is not None:
        words = [f"data={cfg.against}", quoted("paths.data_dir", str(cfg.paths.data_dir))]
        modules[str(cfg.against)] = instantiate(compose("likelihood", words).data, trust=cfg.trust)
    return modules


def test_samples(cfg: DictConfig, data: Any, module: TrainedModel) -> Samples:
    """Samples of a data module.

    Raises:
        ConfigError: They are not of the model's shape.
    """
    import torch

    data.prepare_data()
    splits = data.splits
    if tuple(splits.test.shape[1:]) != tuple(module.shape):
        raise ConfigError(
            f"against={cfg.against}: its samples have the shape {list(splits.test.shape[1:])}, the "
            f"model's {list(module.shape)}; take other data"
        )
    device = next(module.parameters()).device

    def chosen(samples: Tensor, labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
        place = torch.linspace(0, len(samples) - 1, min(most, len(samples))).round().long()
        batch = samples[place].to(device), labels[place].to(device)
        x0, label = data.on_after_batch_transfer(batch, 0)
        return x0, label

    if len(splits.test) < cfg.num_images:
        print(f"{splits.name} has {len(splits.test):,} test samples: all are scored")
    test = chosen(splits.test, splits.test_labels, cfg.num_images)
    train = chosen(splits.train, splits.labels, TUNING)
    return Samples(*test, splits.test.dtype == torch.uint8, *train)

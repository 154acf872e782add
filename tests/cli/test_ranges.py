"""Every number in conf/, pushed out of its range: status 2, one message, no folder made.

The ranges are not repeated here: they are those that constructors declare (`diffusion_lab.ranges`)
and those of `config.rules`; of the torch-only classes, which declare none, the constructor itself
is asked.
"""

import ast
import fnmatch
import math
import re
import sys
from contextlib import contextmanager
from importlib import import_module

import pytest
from omegaconf import ListConfig, OmegaConf
from test_conf import CASES, overrides

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.config.composing import CONF
from diffusion_lab.config.rules import RULES, leaves
from diffusion_lab.config.signatures import signature
from diffusion_lab.errors import UserError
from diffusion_lab.evaluation.likelihood_request import END
from diffusion_lab.evaluation.likelihood_request import LIKELIHOOD_RULES as OF_LIKELIHOOD
from diffusion_lab.ranges import alternatives, annotation_tree, bounds_of, last_name, mismatch

TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none", "denoiser=mlp",
    "data=moons", "sampler.steps=2", "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1", "trainer.precision=32-true", "callbacks.samples=null",
    "callbacks.record.report=false",
]  # fmt: skip
CNN = ["experiment=quickstart", "budget=smoke", "denoiser=cnn"]
WRONG = [math.nan, math.inf, "text", [1.5, "x"], True]
"""Values that hardly any number may have."""
NONE = ast.Constant(None)
TORCH_ONLY = tuple(f"diffusion_lab.{room}." for room in ("diffusion", "sampling", "denoisers"))
COMMANDS = ["train", "sample", "evaluate", "likelihood", "bench", "study", "features"]
"""Those of conf/ that take numbers; two more parts of evaluate by themselves."""
FREE = {"label", "image", "known"}
"""Keys that take words and lists besides numbers."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from diffusion_lab.train import train

    folder = tmp_path_factory.mktemp("ranges") / "run"
    train(compose("train", [*TINY, f"run_dir={folder}"]))
    return folder


def small(group, option):
    """`test_conf.overrides`, with a network that is quickly built where it is not the topic."""
    words = overrides(group, option)
    if group in ("denoiser", "norm", "activation", "block", "down", "up"):
        return words
    words = [word for word in words if not word.startswith("denoiser.")]
    return ["denoiser=cnn" if word == "denoiser=unet" else word for word in words]


def bases(command, run):
    """Overrides that together bring every number of a command."""
    if command in ("sample", "evaluate", "likelihood"):
        yield [f"ckpt={run}"]
    if command == "bench":
        yield CNN
    if command == "study":
        yield from ([f"study={path.stem}"] for path in (CONF / "study").glob("*.yaml"))
    if command == "features":
        yield from ([f"features={path.stem}"] for path in (CONF / "features").glob("*.yaml"))
    if command != "train":
        return
    nested = "{_target_:diffusion_lab.sampling.ancestral.DDIM,steps:2,eta:0.5}"
    yield [*CNN, f"+callbacks.samples.sampler={nested}"]
    for group, option in CASES:
        if re.search(
            r"^ *[a-z_]+:.*(\d|null)", (CONF / group / f"{option}.yaml").read_text(), re.M
        ):
            yield small(group, option)
    yield [*CNN, "data=image_folder", "data.folder=pictures"]
    yield [*CNN, "guidance=auto", f"guidance.weak.path={run}"]
    yield [*CNN, "guidance=classifier", f"guidance.classifier.path={run}"]
    yield from ([*CNN, f"logger={path.stem}"] for path in (CONF / "logger").glob("*.yaml"))
    for path in (CONF / "experiment").glob("*.yaml"):
        if path.stem != "image_folder":
            yield [f"experiment={path.stem}", "budget=smoke"]
    yield [*CNN, "sweep=optuna"]


def annotation_of(command, plain, path):
    """(target, annotation) of a key; of a ruled one, the rule; None where nothing states one."""
    parent, _, key = path.rpartition(".")
    node = plain
    for part in parent.split(".") if parent else ():
        node = node[part]
    target = str(node.get("_target_", ""))
    taken = signature(target) if target else None
    rule = rule_of(command, path)
    stated = taken.annotations.get(key) if taken else None
    return target, annotation_tree(rule) if isinstance(rule, str) else stated


def rule_of(command, path):
    rules = OF_LIKELIHOOD | {"end": END} | RULES if command == "likelihood" else RULES
    return next((rule for name, rule in rules.items() if fnmatch.fnmatchcase(path, name)), None)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(command, plain):
    """Key paths that hold a number, a list of numbers, or null in place of one."""
    for path, value in leaves(plain):
        _, annotation = annotation_of(command, plain, path)
        entries = value if isinstance(value, list) and value else [value]
        empty = value is None and any(map(bounds_of, alternatives(annotation or NONE)))
        if path.rpartition(".")[2] not in FREE and (all(map(is_number, entries)) or empty):
            yield path


def edges(bounds):
    """Values just outside of a range (ge, gt, le, lt)."""
    ge, gt, le, lt = bounds
    below = [ge - 1, ge - 0.5] if ge is not None else [gt, gt - 1] if gt is not None else []
    above = [le + 1] if le is not None else [lt, lt + 1] if lt is not None else []
    return [*below, *above]


def outside(command, plain, path):
    """Values that must be refused: of no number, and beyond what is declared."""
    _, annotation = annotation_of(command, plain, path)
    rule, found = rule_of(command, path), list(WRONG)
    for part in alternatives(annotation) if annotation else ():
        in_list = last_name(getattr(part, "value", part)) == "list"
        stated = bounds_of(part.slice if in_list else part)
        found += edges(stated[1]) if stated else []
        if in_list and stated:
            found = [[value] for value in found if value is not WRONG[3]] + [1, "text"]
    if annotation is not None and mismatch(None, annotation):
        found.append(None)
    return [value for value in found if not takes(annotation, rule, value)]


def takes(annotation, rule, value):
    """Whether a key says in so many words that it takes such a value."""
    parts = alternatives(annotation or NONE)
    for kind, bounds in filter(None, map(bounds_of, parts)):  # beyond one range, inside another
        if is_number(value) and (kind == "float" or isinstance(value, int)) and bounds.hold(value):
            return True
    said = annotation is None or mismatch(value, annotation) is None
    names = {getattr(getattr(part, "value", part), "id", "") for part in parts}
    named = names & {type(value).__name__, "Literal"}
    return bool(said and named and not (callable(rule) and rule(value)))


@pytest.fixture(scope="module")
def configs(run):
    """Command -> its configs."""
    name = {"study": "evaluate", "features": "evaluate"}
    return {
        command: [compose(name.get(command, command), words) for words in bases(command, run)]
        for command in COMMANDS
    }


def cases(command, configs):
    """(config, plain config, key path) of every number, once for each class that takes it."""
    seen = set()
    for cfg in configs[command]:
        plain = OmegaConf.to_container(cfg, resolve=True)
        for path in numbers(command, plain):
            target, _ = annotation_of(command, plain, path)
            key = (target, path.rpartition(".")[2]) if target else (command, path)
            elsewhere = path.split(".")[0] != command if command in ("study", "features") else (
                target and command != "train" and not path.startswith("bench.")
            )  # fmt: skip
            if key not in seen and not elsewhere:
                seen.add(key)
                yield cfg, plain, path


def refuse_work(*_):
    raise AssertionError("a run folder was made")


def task_of(command):
    if command in ("study", "features"):
        return lambda cfg: raise_errors(check(OmegaConf.create({command: cfg[command]})))
    return getattr(import_module(f"diffusion_lab.{command}"), command)


@contextmanager
def set_to(cfg, path, value):
    """A config with another value, for a while."""
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    before = OmegaConf.to_container(node, resolve=False)[key]
    OmegaConf.update(cfg, path, value, force_add=True)
    try:
        yield cfg
    finally:
        OmegaConf.update(cfg, path, before, merge=False)


def fault_of(task, cfg, path):
    """What is wrong with how a value of `path` is refused; None where nothing is."""
    try:
        task(cfg)
    except UserError as error:
        told = str(error)
        named = any(
            f"{start}{path}{end}" in told for start, end in (("", "="), ("", "["), ("(", " "))
        )
        return None if error.exit_status == 2 and named and "Error:" not in told else told
    except Exception as error:
        return repr(error)
    return "passes"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_out_of_its_range_is_refused(command, configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusion_lab.train.open_run", refuse_work)
    wrong, count, whole = [], 0, task_of(command)
    quick = whole if command != "train" else lambda cfg: raise_errors(check(cfg, build=False))
    for cfg, plain, path in cases(command, configs):
        for number, value in enumerate(outside(command, plain, path)):
            count += 1
            with set_to(cfg, path, value):
                fault = fault_of(quick if number % 6 else whole, cfg, path)
            wrong += [(path, value, fault)] if fault else []
    assert not wrong, wrong
    assert count > {"study": 5, "features": 10}.get(command, 20)
    assert not list(tmp_path.iterdir())


def test_what_a_constructor_of_torch_alone_refuses_is_refused_before(configs):
    """Those classes declare no ranges: what they accept is asked of themselves."""
    wrong = []
    for cfg, plain, path in cases("train", configs):
        target, annotation = annotation_of("train", plain, path)
        stated = rule_of("train", path) or any(map(bounds_of, alternatives(annotation or NONE)))
        if stated or not target.startswith(TORCH_ONLY):
            continue
        for value in (-1, 0, 1e30):
            value = [value] if isinstance(OmegaConf.select(cfg, path), ListConfig) else value
            with set_to(cfg, path, value):
                if not mismatch(value, annotation) and is_refused(cfg, path) and not check(cfg):
                    wrong.append((path, value))
    assert not wrong


def is_refused(cfg, path):
    """Whether the class that takes a key cannot be made."""
    try:
        instantiate(OmegaConf.select(cfg, path.rpartition(".")[0]))
    except Exception:
        return True
    return False


TYPED = {
    "callbacks.ema.warmup=0.5": "callbacks.ema.warmup=0.5 must be a number of at least 1",
    "callbacks.guard.max_skipped=-3": "callbacks.guard.max_skipped=-3 must be an integer",
    "data.shape=[1,20,20]": "data.shape=[1, 20, 20]: MNIST has samples of [1, 28, 28]",
    "data.num_classes=7": "data.num_classes=7: MNIST has 10",
    "callbacks.samples.raw=-1": "callbacks.samples.raw=-1 must be an integer of at least 0",
    "+callbacks.samples.sampler={_target_:diffusion_lab.sampling.ancestral.DDIM,eta:2}": (
        "callbacks.samples.sampler.eta=2"
    ),
    "trainer.devices=-1": "trainer.devices=-1 names accelerators",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0 must be",
    "trainer.check_val_every_n_epoch=null": "trainer.val_check_interval=1.0 must be an integer",
    "optimizer=sgd optimizer.momentum=0": "optimizer.momentum=0",
    "experiment=seed_001 callbacks.artefacts.pages.digit_3.label=30": "digit_3.label=30 must be",
    "-m seed=0,1 hydra.sweeper.n_trials=0 sweep=optuna": "hydra.sweeper.n_trials=0 must be",
    "-m seed=0,1 hydra.launcher.n_jobs=-2 sweep=joblib": "hydra.launcher.n_jobs=-2 must be",
}
"""What is typed after `train trainer=cpu`, and what is answered."""


@pytest.mark.parametrize("words", TYPED)
def test_a_typed_one_ends_with_status_2(words, tmp_path, monkeypatch, capsys):
    from diffusion_lab.train import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "trainer=cpu", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == 2 and told.count("error:") == 1 and "Traceback" not in told
    assert TYPED[words] in told
    assert not list(tmp_path.iterdir())


def test_every_rule_is_of_a_key(configs):
    """A pattern that no key of conf/ matches is a rule of nothing."""
    keys = {
        path
        for command in COMMANDS
        for cfg in configs[command]
        for path, _ in leaves(OmegaConf.to_container(cfg))
    }
    for path in (CONF / "sweep").glob("*.yaml"):
        node = OmegaConf.to_container(OmegaConf.load(path)).get("hydra", {})
        keys |= {f"hydra.{key}" for key, _ in leaves(node)}
    keys |= {f"trainer.{name}" for name in signature("lightning.Trainer").annotations}
    assert not [name for name in RULES if not fnmatch.filter(keys, name)]

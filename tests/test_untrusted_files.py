"""Files that somebody was sent are plain data: nothing in them runs, writes or goes online.

Each payload changes a good checkpoint (`net/format_1.ckpt`) or a run folder, as its maker could,
and is taken through every door that reads such a file. At each it is either refused, with one
message and status 2, or it changes nothing: what is composed knows no place and no package of
the file. An audit hook sees that no process starts, nothing connects, and nothing is written
outside of the test's own folder.
"""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401 (starts a process to find fonts, once)
import pytest
import torch
from omegaconf import OmegaConf

from diffusion_lab.checkpoints.format import write_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check, raise_errors
from diffusion_lab.errors import UserError
from diffusion_lab.loading import make_trainer
from diffusion_lab.runs.folder import open_run, refuse_link_below, refuse_links, with_resume

GOOD = Path(__file__).parent / "net" / "format_1.ckpt"
OUTSIDE = Path(tempfile.mkdtemp(prefix="outside"))
"""A folder that is there, writable, and none of any run's business."""
OUT = str(OUTSIDE)
TOUCH = f"touch {OUT}/executed"

Checkpoint = dict[str, Any]
Plant = Callable[[Checkpoint], None]


# ---------------------------------------------------------------------- what is watched

_STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
           "os.forkpty", "pty.spawn", "socket.connect", "socket.getaddrinfo", "os.startfile",
           "webbrowser.open", "urllib.Request")  # fmt: skip
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod",
            "os.truncate", "shutil.rmtree", "shutil.copyfile", "shutil.move")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_seen: list[str] = []
_inside: list[Path] = []
"""Where files may be written while something is watched; empty: nothing is watched."""


def _is_inside(path: Any) -> bool:
    if isinstance(path, int):
        return True
    text = os.path.abspath(os.fsdecode(path))
    if "__pycache__" in text or text.startswith(("/dev/", "/proc/")):
        return True
    return any(f"{os.path.realpath(text)}{os.sep}".startswith(f"{p}{os.sep}") for p in _inside)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _inside:
        return
    if event in _STARTS:
        _seen.append(f"{event} {arguments[:2]!r:.200}")
    elif event == "open":
        path, mode, flags = arguments
        writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITING)
        if writes and path is not None and not _is_inside(path):
            _seen.append(f"open {path!r} to write")
    elif event in _CHANGES and not any(
        _is_inside(a) for a in arguments[:2] if isinstance(a, str | bytes)
    ):
        _seen.append(f"{event} {arguments[:2]!r:.200}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(*places: Path) -> Iterator[None]:
    """Fail if anything starts or connects, or is written outside of `places`."""
    _seen.clear()
    _inside[:] = [place.resolve() for place in places]
    try:
        yield
    finally:
        _inside.clear()
    assert not _seen
    assert not list(OUTSIDE.iterdir())


# ---------------------------------------------------------------------- doors


class Reached(Exception):
    """What comes after the file was found sound."""


def reached(*args: Any, **kwargs: Any) -> None:
    raise Reached


def by_load(file: Path) -> None:
    from diffusion_lab import load

    load(file)


def by_stored_model(file: Path) -> None:
    from diffusion_lab.loading import StoredModel

    StoredModel(str(file))()


def by_sample(file: Path) -> None:
    from diffusion_lab.sample import sample

    cfg = compose("sample", [f"ckpt={file}", "num_samples=2", "device=cpu", "out=out.npz"])
    is_plain(cfg)
    sample(cfg)


def by_sample_unlooked(file: Path) -> None:
    """A caller that names the file only after composing."""
    from diffusion_lab.sample import sample

    cfg = compose("sample", ["num_samples=2", "device=cpu", "out=out.npz", "sampler.steps=2"])
    cfg.ckpt = str(file)
    sample(cfg)


def by_guidance(file: Path) -> None:
    from diffusion_lab.sample import sample

    words = ["guidance=auto", f"guidance.weak.path={file}", "num_samples=2", "device=cpu"]
    sample(compose("sample", [f"ckpt={GOOD}", *words, "out=out.npz"]))


def by_evaluate(file: Path) -> None:
    from diffusion_lab.evaluate import evaluate

    cfg = compose("evaluate", [f"ckpt={file}", "device=cpu", "num_samples=20"])
    is_plain(cfg)
    evaluate(cfg)


def by_study(file: Path) -> None:
    from diffusion_lab.evaluate import evaluate

    words = ["study=frontier", f"ckpt={file}", "device=cpu", "num_samples=20"]
    cfg = compose("evaluate", words)
    is_plain(cfg)
    evaluate(cfg, typed=words)


def by_likelihood(file: Path) -> None:
    from diffusion_lab.likelihood import likelihood

    cfg = compose("likelihood", [f"ckpt={file}", "device=cpu", "num_images=4", "steps=4"])
    is_plain(cfg)
    likelihood(cfg)


def resumed(target: Path) -> None:
    words = with_resume([f"resume={target}", "trainer=cpu", "logger=none"])
    cfg = compose("train", words)
    is_plain(cfg)
    raise_errors(check(cfg))
    make_trainer(cfg, open_run(cfg, words))


def by_resume(file: Path) -> None:
    resumed(file)


def by_resume_folder(file: Path) -> None:
    resumed(file.parent.parent)


def by_resume_logged(file: Path) -> None:
    cfg = compose("train", with_resume([f"resume={file}", "trainer=cpu"]))
    is_plain(cfg)
    raise_errors(check(cfg))


LOADING = {"load": by_load, "StoredModel": by_stored_model}
DRAWING = {"sample": by_sample, "sample, unlooked": by_sample_unlooked, "guidance": by_guidance}
SCORING = {"evaluate": by_evaluate, "study": by_study, "likelihood": by_likelihood}
RESUMING = {
    "resume": by_resume,
    "resume folder": by_resume_folder,
    "resume logged": by_resume_logged,
}
DOORS = LOADING | DRAWING | SCORING | RESUMING


def is_plain(cfg: Any) -> None:
    """Nothing that a file says has become a place, a package or an order to Hydra."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    assert OUT not in str(plain)
    assert not plain["trust"]
    assert str(plain["paths"]["output_dir"]) == "outputs"
    logger = plain.get("logger") or {}
    assert logger.get("offline", True) is True
    nested(plain)


def nested(node: Any) -> None:
    if isinstance(node, dict):
        assert not {"_args_", "_recursive_", "_convert_", "_mode_", "hydra"} & set(node)
        assert str(node.get("_target_", "torch.")).split(".")[0] in {
            "diffusion_lab",
            "torch",
            "lightning",
        }
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        nested(child)


# ---------------------------------------------------------------------- payloads

INSTANTIATE_CLASS = {
    "_target_": "lightning.pytorch.cli.instantiate_class",
    "args": [TOUCH],
    "init": {"class_path": "os.system"},
}
OUR_WRITER = {
    "_target_": "diffusion_lab.files.write_atomically", "path": f"{OUT}/executed", "content": "x",
}  # fmt: skip
CALLS: dict[str, dict[str, Any]] = {
    "instantiate_class": INSTANTIATE_CLASS,
    "os.system": {"_target_": "os.system", "command": TOUCH},
    "posix.system": {"_target_": "posix.system", "command": TOUCH},
    "Popen": {"_target_": "subprocess.Popen", "args": TOUCH, "shell": True},
    "eval": {"_target_": "builtins.eval", "source": f"open('{OUT}/executed', 'w')"},
    "exec": {"_target_": "builtins.exec", "source": f"open('{OUT}/executed', 'w')"},
    "import_module": {"_target_": "importlib.import_module", "name": "antigravity"},
    "a function of ours": OUR_WRITER,
    "StoredModel": {"_target_": "diffusion_lab.loading.StoredModel", "path": OUT},
    "a callback": {
        "_target_": "diffusion_lab.training.callbacks.run_record.RunRecord", "run_dir": OUT,
    },
    "a logger": {
        "_target_": "diffusion_lab.training.loggers.wandb_run.WandbRun", "run_dir": OUT,
    },
    "hydra.utils.call": {"_target_": "hydra.utils.call", "config": {"x": 1}},
    "hydra instantiate": {"_target_": "hydra.utils.instantiate", "config": OUR_WRITER},
    "our build": {"_target_": "diffusion_lab.config.building.build", "node": 1, "role": "data"},
    "our instantiate": {"_target_": "diffusion_lab.config.building.instantiate", "node": None},
    "torch.load": {"_target_": "torch.load", "f": f"{OUT}/x", "weights_only": False},
    "torch.hub.load": {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"},
    "functools.partial": {"_target_": "functools.partial", "func": "os.system"},
    "methodcaller": {"_target_": "operator.methodcaller", "name": "system"},
    "alias in our module": {"_target_": "diffusion_lab.sample.Path", "path": "x"},
    "alias of os": {"_target_": "diffusion_lab.files.os.system", "command": TOUCH},
    "alias in lightning": {"_target_": "lightning.pytorch.trainer.trainer.os.system", "x": TOUCH},
    "alias in torch.optim": {"_target_": "torch.optim.optimizer.functools.partial", "func": 1},
    "no string": {"_target_": ["os", "system"]},
    "a newline": {"_target_": "os.system\n", "command": TOUCH},
    "null": {"_target_": None},
}  # fmt: skip
"""What a `_target_` may name, in whatever place."""


def at(path: str, value: Any) -> Plant:
    """Put a value at a path of the configuration; missing nodes are made."""

    def plant(checkpoint: Checkpoint) -> None:
        node = checkpoint["diffusion_lab"]["config"]
        *parents, last = path.split("/")
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[last] = copy.deepcopy(value)

    return plant


def own(key: str, value: Any) -> Plant:
    """Put a value beside the configuration."""

    def plant(checkpoint: Checkpoint) -> None:
        checkpoint["diffusion_lab"][key] = value

    return plant


def top(key: str, value: Any) -> Plant:
    def plant(checkpoint: Checkpoint) -> None:
        checkpoint[key] = value

    return plant


def all_of(*plants: Plant) -> Plant:
    def plant(checkpoint: Checkpoint) -> None:
        for each in plants:
            each(checkpoint)

    return plant


def choice(group: str, option: Any) -> Plant:
    def plant(checkpoint: Checkpoint) -> None:
        checkpoint["diffusion_lab"]["choices"][group] = option

    return plant


def weight(change: Callable[[torch.Tensor], Any]) -> Plant:
    def plant(checkpoint: Checkpoint) -> None:
        for state in (checkpoint["state_dict"], checkpoint["current_model_state"]):
            name = next(iter(state))
            state[name] = change(state[name])

    return plant


def deep(value: Any, depth: int, kind: type) -> Any:
    for _ in range(depth):
        value = {"x": value} if kind is dict else [value]
    return value


def endless() -> dict[str, Any]:
    node: dict[str, Any] = {}
    node["x"] = node
    return node


def doubled(times: int) -> list[Any]:
    node: list[Any] = [0]
    for _ in range(times):
        node = [node, node]
    return node


RUN_RECORD = "diffusion_lab.training.callbacks.run_record.RunRecord"
CHECKPOINTS = "diffusion_lab.training.callbacks.checkpoints.Checkpoints"
WANDB = {
    "_target_": "diffusion_lab.training.loggers.wandb_run.WandbRun",
    "run_dir": OUT, "offline": False, "project": "stolen", "log_checkpoints": "last",
}  # fmt: skip
FOLDER = {
    "_target_": "diffusion_lab.data.image_folder.ImageFolder", "folder": "pictures", "cache": OUT,
    "shape": [1, 28, 28], "num_classes": 10,
}  # fmt: skip
MNIST = {"_target_": "diffusion_lab.data.mnist.MNIST", "data_dir": OUT, "shape": [1, 28, 28],
         "num_classes": 10, "mean": -0.739, "std": 0.616}  # fmt: skip

EVERYWHERE: dict[str, Plant] = {
    **{f"denoiser: {name}": at("denoiser", node) for name, node in CALLS.items()},
    **{f"in denoiser: {name}": at("denoiser/block", node) for name, node in CALLS.items()
       if name in ("instantiate_class", "os.system", "a function of ours", "StoredModel")},
    "in a list": at("denoiser/multipliers", [[INSTANTIATE_CLASS]]),
    "in a dict": at("denoiser/norm/groups", {"a": {"b": [INSTANTIATE_CLASS]}}),
    "schedule": at("schedule", INSTANTIATE_CLASS),
    "in schedule": at("schedule/steps", OUR_WRITER),
    "parameterization": at("parameterization", INSTANTIATE_CLASS),
    "sampler": at("sampler", INSTANTIATE_CLASS),
    "in sampler": at("sampler/grid", INSTANTIATE_CLASS),
    "data for a sampler": at("sampler", {"_target_": "diffusion_lab.data.digits.Digits"}),
    "a grid for a sampler": at("sampler", {"_target_": "diffusion_lab.sampling.spacing.Trailing"}),
    "a norm for a denoiser": at("denoiser", {"_target_": "diffusion_lab.denoisers.layers.silu"}),
    "a callback for a sampler": at("sampler", {"_target_": RUN_RECORD, "run_dir": OUT}),
    "guidance": at("guidance", INSTANTIATE_CLASS),
    "in guidance": at("guidance/rule", INSTANTIATE_CLASS),
    "constraint": at("constraint", INSTANTIATE_CLASS),
    "_args_": at("denoiser/_args_", [TOUCH]),
    "_recursive_": at("denoiser/_recursive_", False),
    "_convert_": at("schedule/_convert_", "all"),
    "_mode_": at("schedule/_mode_", "x"),
    "a dotted key": at("denoiser/norm", {"x._target_": "os.system", "x.command": TOUCH}),
    "a dotted target": at("denoiser", {"block._target_": "os.system"}),
    "environment": at("denoiser/attention", "${oc.env:HOME}"),
    "decoded": at("schedule/shift", "${oc.decode:'1'}"),
    "created": at("schedule/steps", "${oc.create:{_target_: os.system}}"),
    "run_dir as text": at("denoiser/attention", "${run_dir}"),
    "an interpolated key": at("denoiser/${oc.env:HOME}", 1),
    "an interpolated target": at("denoiser/_target_", "${oc.env:HOME}"),
    "a key that is a number": at("denoiser/norm", {1: 2}),
    "a key that is no text": at("schedule", {("a", "b"): 2}),
    "a tensor": at("schedule/shift", torch.ones(2)),
    "bytes": at("schedule/shift", b"x"),
    "a complex number": at("schedule/shift", 1j),
    "defaults of a node": at("sampler/defaults", [{"/sampler@_global_": "ddim"}]),
    "no dict": own("config", ["denoiser"]),
    "text": own("config", "denoiser: 1"),
    "a number": own("config", 7),
    "a text for a network": at("denoiser", "os.system"),
    "a list for a network": at("denoiser", [INSTANTIATE_CLASS]),
    "a text for a schedule": at("schedule", "linear"),
    "a list for a sampler": at("sampler", [1]),
    "a text for the model": at("model", "x"),
    "deep dicts": at("denoiser/norm", deep({}, 300, dict)),
    "deep lists": at("denoiser/multipliers", deep(1, 300, list)),
    "endless": at("denoiser/norm", endless()),
    "doubled": at("denoiser/multipliers", doubled(40)),
    "a format that is no number": own("format", "1"),
    "choices that are no dict": own("choices", ["a"]),
    "a choice that is no text": choice("sampler", 3),
    "choices by number": own("choices", {1: "a"}),
    "weights that are no dict": own("weights", "ema"),
    "weights by a list": own("weights", {"state_dict": ["ema"]}),
    "weights from elsewhere": own("weights", {"callbacks": "ema"}),
    "text as weights": top("state_dict", "x"),
    "no tensor": weight(lambda tensor: "x"),
    "a list as tensor": weight(lambda tensor: tensor.tolist()),
    "complex weights": weight(lambda tensor: tensor.to(torch.complex64)),
    "sparse weights": weight(lambda tensor: tensor.to_sparse()),
    "meta weights": weight(lambda tensor: tensor.to("meta")),
    "without a description": top("diffusion_lab", None),
}  # fmt: skip
"""Refused at every door."""

MODEL: dict[str, Plant] = {
    "no network": lambda c: c["diffusion_lab"]["config"].pop("denoiser"),
    "no schedule": lambda c: c["diffusion_lab"]["config"].pop("schedule"),
    "no model": lambda c: c["diffusion_lab"]["config"].pop("model"),
    "no shape": lambda c: c["diffusion_lab"]["config"]["model"].pop("shape"),
    "a shape that is none": at("model/shape", 7),
    "a shape of text": at("model/shape", ["a"]),
    "an argument that is none": at("denoiser/bases", 7),
    "text for a number": at("denoiser/base_channels", "x"),
    "NaN for a number": at("denoiser/base_channels", float("nan")),
    "less than nothing": at("denoiser/base_channels", -4),
    "a part for a number": at(
        "denoiser/heads", {"_target_": "diffusion_lab.denoisers.layers.silu"}
    ),
    "a text for the guidance": at("guidance", "cfg"),
    "another network": at("denoiser/base_channels", 8),
    "another shape": weight(lambda tensor: tensor[:1]),
    "integers": weight(lambda tensor: torch.zeros_like(tensor, dtype=torch.int64)),
}
"""Refused where the model is built."""

TRAINING: dict[str, Plant] = {
    "optimizer": at("optimizer", INSTANTIATE_CLASS),
    "in optimizer": at("optimizer/betas", [INSTANTIATE_CLASS]),
    "lr_scheduler": at("lr_scheduler", INSTANTIATE_CLASS),
    "objective": at("objective", INSTANTIATE_CLASS),
    "in objective": at("objective/time/mean", INSTANTIATE_CLASS),
    "trainer": at("trainer", INSTANTIATE_CLASS),
    "in trainer": at("trainer/plugins", [INSTANTIATE_CLASS]),
    "callbacks": at("callbacks", INSTANTIATE_CLASS),
    "a callback": at("callbacks/ema", INSTANTIATE_CLASS),
    "one more callback": at("callbacks/more", INSTANTIATE_CLASS),
    "a dotted callback": at("callbacks/more._target_", "lightning.pytorch.cli.instantiate_class"),
    "a callback for data": at("data", {"_target_": RUN_RECORD, "run_dir": OUT}),
    "data": at("data", INSTANTIATE_CLASS),
    "model": at("model", INSTANTIATE_CLASS),
    "logger": at("logger", INSTANTIATE_CLASS),
    "a partial callback": at("callbacks/ema/_args_", [1]),
    "a page outside": at("callbacks/artefacts", {
        "_target_": "diffusion_lab.training.callbacks.final_figures.FinalFigures", "run_dir": OUT,
        "pages": {"x": {"_target_": "diffusion_lab.figures.sample_figures.DenoisingFigure",
                        "folder": "../../x"}}}),
    "a page at an absolute place": at("callbacks/artefacts", {
        "_target_": "diffusion_lab.training.callbacks.final_figures.FinalFigures", "run_dir": OUT,
        "pages": {"x": {"_target_": "diffusion_lab.figures.sample_figures.GridFigure",
                        "file": "/x.png"}}}),
    "a link outside": at("callbacks/artefacts", {
        "_target_": "diffusion_lab.training.callbacks.final_figures.FinalFigures", "run_dir": OUT,
        "pages": {"x": {"_target_": "diffusion_lab.figures.run_figures.Alias",
                        "file": "x", "of": "../../x"}}}),
    "a key with a word": at("callbacks/a=1 hydra.run.dir", {"x": OUT}),
    "a key with a comma": at("callbacks/ema/decay,trust=[os]", 1),
    "a key with a newline": at("callbacks/x\nhydra.run.dir", OUT),
    "a key with a quote": at("data/x'", 1),
    "interpolated callbacks": at("callbacks/record/experiment", "${oc.env:HOME}"),
    "interpolated trainer": at("trainer/max_steps", "${oc.decode:${oc.env:HOME}}"),
    "data from elsewhere": all_of(
        at("data", MNIST), choice("data", "mnist"), at("paths", {"data_dir": OUT})
    ),
    "a callback that is a text": at("callbacks/ema", "os.system"),
    "callbacks that are a text": at("callbacks", "x"),
    "a trainer that is a list": at("trainer", [1]),
    "a seed that is a node": at("seed", INSTANTIATE_CLASS),
    "NaN for the learning rate": at("optimizer/lr", float("nan")),
}  # fmt: skip
"""Refused where a run goes on."""

NOTHING: dict[str, Plant] = {
    "as it is": lambda checkpoint: None,
    "stored trust": at("trust", ["os", "lightning", "subprocess"]),
    "trust as choice": choice("trust", "[os]"),
    "hydra's node": at("hydra", {"run": {"dir": OUT}, "job": {"env_set": {"LD_PRELOAD": OUT}}}),
    "hydra.run.dir as choice": choice("hydra.run.dir", OUT),
    "hydra.run as choice": choice("hydra/run", OUT),
    "a launcher as choice": choice("hydra/launcher", "joblib"),
    "env_set as choice": choice("hydra.job.env_set.X", "1"),
    "a group in hydra": choice("sampler@hydra.job", "ddim"),
    "a sampler elsewhere": choice("sampler@callbacks.x", "ddim"),
    "a choice with a word": choice("sampler", "euler hydra.run.dir=x"),
    "a choice with a comma": choice("sampler", "euler,ddim"),
    "a choice that climbs": choice("../conf/sampler", "euler"),
    "a choice outside": choice("sampler", "../../x"),
    "a group with an equals": choice("sampler=euler,hydra.run.dir", "ddim"),
    "a group with a newline": choice("sampler\nhydra/launcher", "ddim"),
    "an added group": choice("+experiment", "edm"),
    "an absent recipe": choice("experiment", "nowhere"),
    "a sweep": choice("sweep", "slurm"),
    "debugging": choice("debug", "profile"),
    "one more node": at("more", {"_a": 1}),
    "run_dir": at("run_dir", OUT),
    "init_from": at("init_from", OUT),
    "resume": at("resume", OUT),
    "paths": at("paths", {"data_dir": OUT, "output_dir": OUT}),
    "default_root_dir": at("trainer/default_root_dir", OUT),
    "run_dir of a callback": at("callbacks/record/run_dir", OUT),
    "run_dir of checkpoints": at("callbacks/checkpoints/run_dir", OUT),
    "one more callback elsewhere": at("callbacks/more", {"_target_": CHECKPOINTS, "run_dir": OUT}),
    "other data elsewhere": at("data", MNIST),
    "one more in a callback": at("callbacks/speed", {"_target_": RUN_RECORD, "run_dir": OUT}),
    "beside": at("callbacks/sample_metrics/scorer/beside", OUT),
    "a reader beside": at("callbacks/final_samples", {
        "_target_": "diffusion_lab.training.callbacks.sampling_callbacks.FinalSamples",
        "reader": {"_target_": "diffusion_lab.metrics.quick.cached_predictor", "_partial_": True,
                   "beside": OUT}}),
    "a cache": all_of(at("data", FOLDER), choice("data", "image_folder")),
    "online": all_of(at("logger", WANDB), choice("logger", "wandb")),
    "online where there was none": at("logger", WANDB),
    "tensorboard elsewhere": at("logger", {
        "_target_": "diffusion_lab.training.loggers.tensorboard_run.TensorBoardRun",
        "run_dir": OUT}),
    "quotes": at("name", "a'b\"c' hydra.run.dir='x"),
    "backslashes": at("name", "\\' hydra.run.dir=x \\"),
    "newlines": at("name", "a\nhydra.run.dir=x\n--config-dir=x"),
    "brackets": at("name", "]},hydra.run.dir=x"),
    "a study of the file": at("study", INSTANTIATE_CLASS),
    "features of the file": at("features", INSTANTIATE_CLASS),
    "a grid of the file": at("grid", INSTANTIATE_CLASS),
    "a budget that is none": at("budget", "'x' trust=[os]"),
}  # fmt: skip
"""Of no effect; refused at most."""


def planted(plant: Plant, folder: Path) -> Path:
    """A run folder with a checkpoint into which something was planted; the checkpoint."""
    checkpoint = torch.load(GOOD, weights_only=True)
    plant(checkpoint)
    file = folder / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    write_checkpoint(checkpoint, file)
    return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in; what comes after a file was found sound is left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("diffusion_lab.evaluation.evaluators.evaluator_of", reached)
    monkeypatch.setattr("diffusion_lab.likelihood.data_modules", reached)
    for name in tuple(OUTSIDE.iterdir()):
        name.unlink()
    return tmp_path


def is_refused(door: Callable[[Path], None], file: Path, here: Path) -> bool:
    """Whether a door refuses a file, as it should: in one message, with nothing done."""
    with watched(here):
        try:
            door(file)
        except Reached:
            return False
        except UserError as error:
            assert error.exit_status == 2
            assert 0 < len(str(error)) < 4000
            return True
    return False


FEW = {"load", "sample, unlooked", "resume"}
"""Doors of every payload: the network's own, the others' common check, and the words of a run.

The others, which stand behind the same two, are gone through by `MANY` and in slow tests.
"""
MANY = {
    "denoiser: instantiate_class", "sampler", "in schedule", "a dotted target", "environment",
    "_args_", "no dict", "deep dicts", "as it is", "stored trust", "hydra's node", "paths",
    "online", "a study of the file", "features of the file", "a grid of the file", "a page outside",
}  # fmt: skip


def cases(payloads: dict[str, Plant], doors: dict[str, Any]) -> Any:
    found = []
    for payload, door in ((p, d) for p in payloads for d in doors):
        marks = () if payload in MANY or door in FEW else pytest.mark.slow
        found.append(pytest.param(payload, door, marks=marks, id=f"{payload}, {door}"))
    return pytest.mark.parametrize(("payload", "door"), found)


@cases(EVERYWHERE, DOORS)
def test_refused_at_every_door(payload: str, door: str, here: Path) -> None:
    assert is_refused(DOORS[door], planted(EVERYWHERE[payload], here), here)


@cases(MODEL, LOADING | DRAWING)
def test_a_model_that_cannot_be_built_is_refused(payload: str, door: str, here: Path) -> None:
    assert is_refused(DOORS[door], planted(MODEL[payload], here), here)


@cases(TRAINING, {name: RESUMING[name] for name in ("resume", "resume folder")})
def test_refused_where_a_run_goes_on(payload: str, door: str, here: Path) -> None:
    assert is_refused(DOORS[door], planted(TRAINING[payload], here), here)


@cases(NOTHING, DOORS)
def test_of_no_effect(payload: str, door: str, here: Path) -> None:
    refused = is_refused(DOORS[door], planted(NOTHING[payload], here), here)
    assert not (refused and payload == "as it is")


# ---------------------------------------------------------------------- files and folders


class Runs:
    """Asks whoever unpickles it to run something."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


PICKLED = {
    "os.system": Runs(os.system, TOUCH),
    "eval": Runs(eval, f"open('{OUT}/executed', 'w')"),
    "open": Runs(open, f"{OUT}/executed", "w"),
    "getattr": Runs(getattr, os, "system"),
}


@pytest.mark.parametrize(
    "door", ["load", "StoredModel", "sample, unlooked", "likelihood", "resume"]
)
@pytest.mark.parametrize("payload", [name for name in PICKLED if name != "getattr"])
def test_a_pickle_runs_nothing(payload: str, door: str, here: Path) -> None:
    file = planted(top("more", PICKLED[payload]), here)
    assert is_refused(DOORS[door], file, here)


def linked(name: str, target: str) -> Callable[[Path], None]:
    def plant(run: Path) -> None:
        place = run / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(target)

    return plant


def text(name: str, content: str) -> Callable[[Path], None]:
    def plant(run: Path) -> None:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(content)

    return plant


RECORDS = {
    "overrides.txt": text("overrides.txt", f"trust=[os]\nhydra.run.dir={OUT}\nname=x\n"),
    "a launcher": text("overrides.txt", "hydra/launcher=joblib\n+a._target_=os.system\n"),
    "differs.json": text("differs.json", '[["hydra.run.dir", null, "x"], ["trust", [], ["os"]]]'),
    "config.yaml": text("config.yaml", "name: ${oc.env:HOME}\ndata: {_target_: os.system}\n"),
    "a tag of Python": text("config.yaml", f"a: !!python/object/apply:os.system ['{TOUCH}']\n"),
    "summary.json": text("summary.json", '{"status": ["x"], "metrics": [1], "data": 3, "git": 1}'),
    "artefacts.json": text("artefacts.json", '{"pages": [{"files": ["../../x.png", "/x.png"]}]}'),
    "metrics.csv": text("metrics.csv", "step,=cmd|' /C calc'!A0\n1,2\n"),
}
"""What a run folder tells people; nothing obeys it."""
LINKS = {
    "config.yaml": linked("config.yaml", f"{OUT}/executed"),
    "metrics.csv": linked("metrics.csv", f"{OUT}/executed"),
    "summary.json": linked("summary.json", f"{OUT}/executed"),
    "report.html": linked("report.html", f"{OUT}/executed"),
    "samples": linked("samples", OUT),
    "a grid": linked("samples/epoch_001.png", f"{OUT}/executed"),
    "the next checkpoint": linked("checkpoints/best.ckpt", f"{OUT}/executed"),
    "wandb": linked("wandb", OUT),
}


@pytest.mark.parametrize("payload", RECORDS)
def test_records_are_not_obeyed(payload: str, here: Path) -> None:
    from diffusion_lab.report import report

    file = planted(lambda checkpoint: None, here)
    RECORDS[payload](file.parent.parent)
    with watched(here), contextlib.suppress(UserError):
        report(compose("report", [f"run={file.parent.parent}"]))
    assert not is_refused(by_resume_folder, file, here)


@pytest.mark.parametrize("payload", LINKS)
def test_links_out_of_a_run_are_not_written_through(payload: str, here: Path) -> None:
    from diffusion_lab.report import report

    file = planted(lambda checkpoint: None, here)
    LINKS[payload](file.parent.parent)
    assert is_refused(by_resume_folder, file, here)
    with watched(here), contextlib.suppress(UserError):
        report(compose("report", [f"run={file.parent.parent}"]))


def test_a_link_to_a_checkpoint_is_read(here: Path) -> None:
    file = planted(lambda checkpoint: None, here)
    link = here / "mine.ckpt"
    link.symlink_to(file)
    assert not is_refused(by_load, link, here)
    assert not is_refused(by_resume, link, here)


def test_a_checkpoint_names_no_file_to_remove(tmp_path: Path) -> None:
    from diffusion_lab.training.checkpoint_io import VerifiedCheckpoints

    kept = tmp_path / "kept"
    kept.touch()
    with pytest.raises(UserError, match="none of this run"):
        VerifiedCheckpoints().remove_checkpoint(tmp_path / "run" / ".." / "kept")
    assert kept.exists()


SWEEPS = {
    "jobs outside": text("sweep.json", '{"command": "x", "jobs": ["../../x", 7]}'),
    "jobs that are none": text("sweep.json", '{"command": "x", "jobs": {"a": 1}}'),
    "a job of lists": text("job_a/job.json", '{"varied": ["x"], "status": ["y"], "sweep": [1]}'),
    "a logger": text("job_a/config.yaml", "logger: {_target_: os.system, offline: false}\n"),
}


@pytest.mark.parametrize("payload", SWEEPS)
def test_the_folder_of_a_sweep(payload: str, here: Path) -> None:
    from diffusion_lab.config.words import Typed
    from diffusion_lab.report import report
    from diffusion_lab.runs.launching import SweepLaunch
    from diffusion_lab.runs.leaderboard import Goal, jobs_of, write_tables

    sweep = here / "sweep"
    sweep.mkdir()
    SWEEPS[payload](sweep)
    words = ["-m", "trainer=cpu", "budget=smoke", "run_dir=sweep", "optimizer.lr=1e-3,2e-3"]
    launch = SweepLaunch(reached)
    with watched(here):
        assert launch.start(Typed.of(words))
        write_tables(sweep, Goal("val/loss", "min"), jobs_of(sweep))
        report(compose("report", ["run=sweep"]))
    assert launch.logger["offline"] is True
    assert launch.logger["_target_"].endswith("WandbRun")


# ---------------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "words",
    [["sample", "ckpt=run", "device=cpu"], ["train", "resume=run", "trainer=cpu", "logger=none"]],
    ids=lambda words: words[0],
)
def test_a_command_says_so_and_ends_with_2(words: list[str], here: Path) -> None:
    planted(at("denoiser", INSTANTIATE_CLASS), here)
    command = [sys.executable, "-m", f"diffusion_lab.{words[0]}", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert "instantiate_class" in done.stderr
    assert not list(OUTSIDE.iterdir())
    assert sorted(path.name for path in here.iterdir()) == ["run"]


def test_a_package_that_is_typed_is_trusted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of somebody's own package: by name, every time."""
    from diffusion_lab import load

    (here / "ours_of_users.py").write_text(
        "import os.path\nfrom diffusion_lab.denoisers.unet import UNet\n"
        "class Net(UNet):\n    pass\ndef net(**given):\n    return Net(**given)\n"
    )
    monkeypatch.syspath_prepend(str(here))
    file = planted(at("denoiser/_target_", "ours_of_users.Net"), here)
    for door in DOORS.values():
        assert is_refused(door, file, here)
    assert load(file, trust=["ours_of_users"]).sample(2, label=1).shape == (2, 1, 28, 28)
    words = with_resume([f"resume={file}", "trust=[ours_of_users]", "trainer=cpu"])
    assert compose("train", words).denoiser._target_ == "ours_of_users.Net"
    with pytest.raises(UserError, match="trust=\\[ours_of_users\\]"):
        load(file, trust=["ours"])
    for index, name in enumerate(("net", "os.system", "Missing")):
        other = planted(at("denoiser/_target_", f"ours_of_users.{name}"), here / str(index))
        words = [f"ckpt={other}", "trust=[ours_of_users]", "device=cpu", "out=x.npz"]
        resumed = [f"resume={other}", "trust=[ours_of_users]", "trainer=cpu"]
        for door in (
            lambda other=other: load(other, trust=["ours_of_users"]),
            lambda words=words: compose("sample", words),
            lambda words=words: compose("evaluate", [*words[:-1], "num_samples=20"]),
            lambda words=words: compose("likelihood", words[:-1]),
            lambda words=resumed: with_resume(words),
        ):
            with pytest.raises(UserError, match=r"no class of|cannot be imported"):
                door()


@pytest.mark.parametrize("start", ["x", {"path": 3}, {"path": "${oc.env:HOME}"}])
def test_the_record_of_a_start_is_plain_text(start: Any, here: Path) -> None:
    file = planted(own("init_from", start), here)
    with pytest.raises(UserError, match="init_from"):
        with_resume([f"resume={file}", "trainer=cpu"])


def test_a_circle_of_links_is_one_out_of_the_run(here: Path) -> None:
    file = planted(lambda checkpoint: None, here)
    (file.parent.parent / "samples").symlink_to("samples")
    with pytest.raises(UserError, match="samples is a link"):
        refuse_links(file.parent.parent)


def test_a_study_does_not_follow_a_link_out_of_its_run(here: Path) -> None:
    file = planted(lambda checkpoint: None, here)
    (file.parent.parent / "studies").symlink_to(OUT)
    with pytest.raises(UserError, match="is a link out of"):
        refuse_link_below(file.parent.parent, "studies/rows")

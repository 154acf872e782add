"""All errors of a config in one go, before any data or device work.

Three looks, cheapest first: names and types against the constructors' source, ranges against a
table, then each torch-only component is built (the network on the meta device, so without memory)
and the pairs that must fit are tried on each other. A key that failed an earlier look is not
looked at again. Only the last look imports torch; none imports lightning or torchvision.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.building import instantiate, nodes, untrusted
from diffusion_lab.config.cross_field_checks import KeyedError, cross_field_errors
from diffusion_lab.config.messages import nearest
from diffusion_lab.config.rules import leaves, ranged
from diffusion_lab.config.signatures import HYDRA_KEYS, names_in, signature
from diffusion_lab.errors import ArgumentError, ConfigError

BUILT = ("schedule", "parameterization", "objective", "denoiser", "sampler", "guidance",
         "constraint", "features")  # fmt: skip
"""Nodes that need torch and nothing heavier (an optimizer would load PyTorch's compiler)."""

_TORCH_ONLY = tuple(f"diffusion_lab.{room}." for room in ("diffusion", "sampling", "denoisers"))
"""Where such classes stand; nodes of theirs are built wherever they are, e.g. below callbacks."""

_FILLED_LATER = frozenset({"params", "optimizer", "total_steps", "denoiser", "schedule",
                           "parameterization", "objective"})  # fmt: skip
"""Required arguments that the entry points hand over."""


def raise_errors(errors: Sequence[str]) -> None:
    """Raise all errors as one error; nothing happens if there are none.

    Raises:
        ConfigError: One line an error.
    """
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        lines = "\n".join(f"  - {error}" for error in errors)
        raise ConfigError(f"This cannot run ({count} in the configuration):\n{lines}")


def check(cfg: DictConfig | dict[str, Any], *, build: bool = True) -> list[str]:
    """Every error of a config, one sentence each; an empty list means it can run.

    Args:
        cfg: A composed config, or a plain dict.
        build: Also build the torch-only components (imports torch, a few seconds when cold).
    """
    return checked_parts(cfg, build=build)[0]


def checked_parts(
    cfg: DictConfig | dict[str, Any], *, build: bool = True
) -> tuple[list[str], dict[str, Any]]:
    """`check`, and what it built: node -> object, for whom it is fit to be used (no network is)."""
    plain, unresolved = _resolved(cfg)
    sources = _sources(cfg)
    trust = plain.get("trust") or []
    trust = trust if isinstance(trust, list) else [str(trust)]
    named, arguments = _arguments(plain)
    found: dict[str, str] = {}
    for path, sentence in chain(
        unresolved,
        _missing(plain),
        named,
        untrusted(plain, trust).items(),
        ranged(plain, arguments).items(),
        cross_field_errors(plain),
    ):
        found.setdefault(path, sentence)
    objects: dict[str, Any] = {}
    if build:
        repeats = {path for path, source in sources.items() if source in found}
        built = Built(plain, trust, set(found), repeats)
        for path, sentence in built.errors():
            found.setdefault(path, sentence)
        objects = built.objects
    for key, _ in unresolved:  # what cannot be read because of a key that has an error of its own
        if any(p.startswith(f"{key}.") and source in found for p, source in sources.items()):
            del found[key]
    return list(dict.fromkeys(_by_source(found, sources).values())), objects


def _sources(cfg: Any) -> dict[str, str]:
    """Key path -> the key that it repeats, as `${data.shape[1]}` repeats data.shape."""
    if not OmegaConf.is_config(cfg):
        return {}
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    named = ((path, re.fullmatch(r"\$\{([\w.]+)(\[\d+\])?\}", str(v))) for path, v in leaves(raw))
    direct = {path: match[1] for path, match in named if match}

    def first(path: str) -> str:
        passed = {path}
        while (path := direct.get(path, path)) not in passed:
            passed.add(path)
        return path

    return {path: first(path) for path in direct}


def _by_source(found: dict[str, str], sources: dict[str, str]) -> dict[str, str]:
    """The errors, each once and with the key that was typed."""
    return {
        path: f"{sentence} ({path} is {sources[path]})" if path in sources else sentence
        for path, sentence in found.items()
        if sources.get(path) not in found
    }


def _resolved(cfg: Any) -> tuple[dict[str, Any], list[KeyedError]]:
    """The config as plain data; keys whose interpolation fails are left out and reported."""
    if not OmegaConf.is_config(cfg):
        return dict(cfg), []
    plain: dict[str, Any] = {}
    errors = []
    for key in cfg:
        if key == "hydra":
            continue
        try:
            value = "???" if OmegaConf.is_missing(cfg, key) else cfg[key]
            is_config = OmegaConf.is_config(value)
            plain[str(key)] = OmegaConf.to_container(value, resolve=True) if is_config else value
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0]
            if "'data.shape[" in text:
                text = f"reads images, data.shape={cfg.data.shape} is of points; take denoiser=mlp"
            errors.append((str(key), f"{key}: {text}"))
    return plain, errors


def _missing(plain: dict[str, Any]) -> Iterator[KeyedError]:
    for path, value in leaves(plain):
        if value == "???":
            yield path, f"{path} has no value: give {path}=..."


def _arguments(
    plain: dict[str, Any],
) -> tuple[list[KeyedError], list[tuple[str, Any, ast.expr | None]]]:
    """Errors of arguments not taken or lacking; (key path, value, annotation) of the others."""
    errors: list[KeyedError] = []
    arguments: list[tuple[str, Any, ast.expr | None]] = []
    for path, node in nodes(plain):
        target = str(node["_target_"])
        taken, name = signature(target), target.rsplit(".")[-1]
        if taken is None:
            errors += _no_such_target(path, target)
            continue
        for key, value in node.items():
            where = f"{path}.{key}" if path else str(key)
            if not taken.takes(str(key)):
                hint = nearest(key, taken.annotations)
                errors.append((where, f"{where}: {name} takes no {key}{hint}"))
            elif key not in HYDRA_KEYS and value != "???":
                arguments.append((where, value, taken.annotations.get(str(key))))
        lacking = set(taken.required) - set(node) - _FILLED_LATER
        if lacking and "_args_" not in node and not node.get("_partial_"):
            errors.append((path, f"{path}: {name} needs {', '.join(sorted(lacking))}"))
    return errors, arguments


def _no_such_target(path: str, target: str) -> Iterator[KeyedError]:
    module, _, name = target.rpartition(".")
    known = names_in(module)
    if target.startswith("diffusion_lab.") and known:
        hint = nearest(name, known)
        yield f"{path}._target_", f"{path}._target_={target}: {module} has no {name}{hint}"


class Built:
    """Builds what needs torch alone and tries it together.

    Args:
        plain: The config as plain data.
        trust: Further packages that a `_target_` may name.
        suspect: Key paths that have an error already; nodes that hold one are not built.
        repeats: Key paths that repeat one of these; nodes are built without them.
    """

    def __init__(
        self, plain: dict[str, Any], trust: Sequence[str], suspect: set[str], repeats: set[str]
    ) -> None:
        self.plain = plain
        self.trust = trust
        self.suspect = suspect
        self.repeats = repeats
        self.objects: dict[str, Any] = {}
        self.found: list[KeyedError] = []

    def errors(self) -> list[KeyedError]:
        """(key path, sentence) of everything that cannot be built or does not fit."""
        for name in BUILT:
            node = self.plain.get(name)
            if isinstance(node, dict) and "_target_" in node:
                self._build(name, node)
        self._build_elsewhere()
        self._fit_foreign_network()
        return self.found

    def _build_elsewhere(self) -> None:
        """What stands in another node, e.g. a sampler of a callback's; outermost ones first."""
        built: list[str] = list(BUILT)
        for path, node in nodes(self.plain):
            inside = any(path == other or path.startswith(f"{other}.") for other in built)
            if str(node["_target_"]).startswith(_TORCH_ONLY) and not inside:
                self._build(path, node)
                built.append(path)

    def _is_suspect(self, path: str) -> bool:
        return any(key == path or key.startswith((path + ".", path + "[")) for key in self.suspect)

    def _build(self, path: str, node: Mapping[str, Any]) -> None:
        """Build a node, those inside it first, so that each of their errors is reported.

        A constructor raises at its first error; the key that it names is then left to its default,
        and the next attempt finds the next error.
        """
        before = len(self.found)
        for key, value in node.items():
            if isinstance(value, dict) and "_target_" in value:
                self._build(f"{path}.{key}", value)
        if len(self.found) > before or self._is_suspect(path):
            return
        required = getattr(signature(node["_target_"]), "required", ())
        left_out = {key for key in node if f"{path}.{key}" in self.repeats}
        if left_out & set(required):
            return
        node = {key: value for key, value in node.items() if key not in left_out}
        while not self._attempt(path, node, partial(self._made, path, node)):
            key = self.found[-1][0].rpartition(".")[2]
            if key not in node or key in required:
                break
            node = {name: value for name, value in node.items() if name != key}
        if len(self.found) > before:
            self.objects.pop(path, None)

    def _made(self, path: str, node: Mapping[str, Any]) -> None:
        """Make an object, and try it on the schedule, which is made first."""
        if path == "denoiser":
            with _without_memory():
                self.objects[path] = instantiate(node, trust=self.trust, path=path)
            return
        made = instantiate(node, trust=self.trust, path=path)
        schedule, check = self.objects.get("schedule"), getattr(made, "check", None)
        if schedule is not None and callable(check):
            check(schedule)
        if schedule is not None and path == "parameterization":
            from diffusion_lab.diffusion.compatibility import check_recoverable  # needs torch

            check_recoverable(made, schedule)
        self.objects[path] = made

    def _attempt(self, path: str, node: Mapping[str, Any], action: Callable[[], Any]) -> bool:
        """Run an action; what it raises becomes an error of the key. True if it raises nothing."""
        try:
            action()
        except Exception as error:
            self.found.append(_sentence(path, node, error))
            return False
        return True

    def _fit_foreign_network(self) -> None:
        foreign = (
            not self.plain.get("denoiser", {}).get("_target_", "").startswith("diffusion_lab.")
        )
        if foreign and "denoiser" in self.objects and not self._is_suspect("data.shape"):
            self._attempt("denoiser", self.plain["denoiser"], self._forward)

    def _forward(self) -> None:
        """One pass of a network from outside over two images without memory: do shapes fit?"""
        import torch

        data = self.plain.get("data") or {}
        net, shape = self.objects["denoiser"].to("meta"), data.get("shape")
        if shape is None:
            return
        with torch.device("meta"), torch.no_grad():
            x = torch.empty(2, *shape)
            label = torch.zeros(2, dtype=torch.long) if data.get("num_classes") else None
            out = net(x, torch.empty(2), label)
        if out.shape not in (x.shape, torch.Size((2, 2 * shape[0], *shape[1:]))):
            raise ValueError(f"gives {list(out.shape[1:])} for images of shape {list(shape)}")


def _without_memory() -> Any:
    """A mode in which weights are on the meta device, and all else as ever.

    Not `torch.device("meta")`: the first arithmetic or random number on that device imports
    PyTorch's compiler and sympy, which takes seconds. So only `torch.empty`, which layers make
    their weights with, goes there, and random initial values stay unset.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutMemory(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            if func is torch.empty:
                kwargs = {**kwargs, "device": "meta"}
            elif getattr(func, "__name__", "") in {"normal_", "uniform_", "trunc_normal_"}:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    return WithoutMemory()


def _key_behind(path: str, node: Mapping[str, Any], name: str) -> str:
    """The key behind an argument: the node's own, or that of a part which the node itself makes."""
    parts = [(key, part) for key, part in node.items() if isinstance(part, dict)]
    inner = [key for key, part in parts if name in part and part.get("_partial_")]
    return f"{path}.{name}" if name in node or not inner else f"{path}.{inner[0]}.{name}"


def _sentence(path: str, node: Mapping[str, Any], error: Exception) -> KeyedError:
    """(path, sentence) of an exception from a constructor, naming the key that is to be changed."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, ConfigError):
        return path, text
    if isinstance(error, ArgumentError):
        name = (
            error.name if error.name.startswith(f"{path}.") else _key_behind(path, node, error.name)
        )
        return name, str(ArgumentError(name, error.value, error.rule))
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}"
    return f"{path}#", f"{path}: {text}"

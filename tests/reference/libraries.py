"""Reference libraries: how to import them with little, and what all comparisons share."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from contextlib import ExitStack, contextmanager
from importlib import metadata, util
from types import ModuleType
from unittest import mock

import pytest
import torch
from exact import MixtureData

from diffusion_lab.diffusion.gaussian import Level

MEANS = torch.tensor([[1.0, 0, 0.5, 0, -1, 0.2], [-1, 1, 0, 0.3, 0, 0], [0, -1, -1, 0, 1, 0.5]])
DATA = MixtureData(MEANS, 0.3)


def start(rows=64, std=1.0, seed=1):
    """A starting state (rows, 6)."""
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(rows, 6, generator=generator, dtype=torch.float64)


def largest(ours, theirs):
    """Largest absolute difference."""
    return float((ours - theirs.double()).abs().max())


def relative(ours, theirs):
    """Largest difference relative to theirs."""
    return float(((ours - theirs.double()) / theirs.double()).abs().max())


def then_zero(t):
    """Visited times, then 0."""
    return torch.cat((t, torch.zeros(1, dtype=torch.float64)))


def at_sigma(sigma):
    """The level (1, sigma) of sigma space, for a denoiser that needs no time."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    return Level(sigma, torch.ones_like(sigma), sigma)


def version(package):
    """Name and installed version, as the table shows them."""
    return f"{package} {metadata.version(package)}"


def load(package, *names, absent=()):
    """Modules of a package without its `__init__`, and without what it needs but we do not.

    Args:
        package: Of the environment; the test module is skipped where it is missing.
        names: Modules of it.
        absent: Imports that an empty stand-in may take the place of.
    """
    spec = util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
    bare = ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations)
    missing = {name: mock.MagicMock() for name in absent if util.find_spec(name) is None}
    sys.modules.update(missing)
    sys.modules[package] = bare
    try:
        return [importlib.import_module(f"{package}.{name}") for name in names]
    except ImportError as error:
        pytest.skip(f"{package}: {error}", allow_module_level=True)
    finally:  # nobody else is to find a package without its __init__, or a stand-in
        for name in list(sys.modules):
            if name in missing or name == package or name.startswith(package + "."):
                del sys.modules[name]


class Double:
    """torch, whose float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def in_float64(*modules):
    """Run reference code whose tables and casts are float32 in float64: only algorithms differ."""
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "torch", Double()))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


class Global:
    """Noise from torch's global generator, as many libraries draw it."""

    def normal(self, like):
        return torch.randn_like(like)


class Listed:
    """Noise handed out from a list."""

    def __init__(self, noises):
        self.noises = list(noises)

    def normal(self, like):
        return self.noises.pop(0)


def amended(function, old, new):
    """A library's function with one expression of its source exchanged."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__name__} has no longer one {old!r}"
    scope = dict(inspect.unwrap(function).__globals__)
    exec(source.replace(old, new), scope)
    return scope[function.__name__]

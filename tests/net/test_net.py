"""The net: eight presets, trained, sampled and scored through the words of the command line.

For a restructuring, which must not change a bit. Each preset trains for twenty steps on embedded
digits (or moons) and is held against `net.json`: the loss of every step and the validation's, four
samples, averaged and raw weights, and the figures of `evaluate`, judged by a classifier of ten
steps. Weights are compared by the digest of their sorted tensors, and their names by another one,
so that a change of names alone shows as such (`weights.ema.names`).

All of it runs in one process under `comparing.PORTABLE`: float32, one thread, and instructions that
AVX2 and AVX-512 processors share. Where the fingerprint is the record's (versions of torch, numpy
and scipy, the kind of processor, and a probe, which is the digest of a plain computation), every
bit must be the same. Elsewhere, with a warning that says so, losses must be within 1e-3, relative,
and the samples' mean and deviation within 1e-2 of their deviation; names, shapes and network calls
must be the same; hashes and the other figures are not looked at. (Without `PORTABLE`, AVX-512 is
1e-6 away, and no vector instructions at all 1e-5, but for batch norm in seed_003.)

A change of numbers that is meant is recorded by `uv run python tests/net/record.py`.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from comparing import faults, is_exact, measured, recorded
from words import PRESETS


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the presets that are asked for give, all from one process."""
    asked = {item.callspec.params.get("preset") for item in request.session.items
             if item.module is request.module}  # fmt: skip
    jobs = [preset for preset in PRESETS if preset in asked]
    return measured(jobs, tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_what_it_gave(preset: str, found: dict[str, Any]) -> None:
    record = recorded()
    if not is_exact(found, record):
        warnings.warn("this machine rounds otherwise: compared by tolerances", stacklevel=1)
    lines = faults(preset, found, record)
    assert not lines, "\n".join(lines)

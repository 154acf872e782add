"""Checkpoints that an older version wrote: they load, draw what they drew, and go on as they did.

Each was written after step 6 of a run of 12 steps, in the middle of an epoch of 9, by
`record.py checkpoints` (`words.STORED` has the words), and is a file as people have on their
disks, with the names of classes of its time in its configuration:

* `format_1`: class-conditional, with guidance and averaged weights;
* `format_1_learned`: with a learned variance, self-conditioning, and a timestep distribution that
  learns;
* `format_1_classifier`: a classifier of noisy images; it steers the samples of the first.

The losses of steps 6 to 11, samples, and weights as stored and at the end are held against
`net.json`, by the rule of `test_net.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from comparing import faults, measured, recorded
from words import STORED


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(list(STORED), tmp_path_factory.mktemp("stored"))


@pytest.mark.parametrize("name", STORED)
def test_a_stored_checkpoint_goes_on(name: str, found: dict[str, Any]) -> None:
    lines = faults(name, found, recorded())
    assert not lines, "\n".join(lines)

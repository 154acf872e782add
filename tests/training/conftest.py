from __future__ import annotations

import logging
import warnings

import pytest


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Lightning's remarks on every Trainer are no part of a test's output."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

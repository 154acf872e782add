"""The recorder of comparisons: `WRITE_TABLE=1 uv run pytest tests/reference` writes the table."""

import math
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

NUMERIC = Path(__file__).parents[1] / "numeric"
sys.path.insert(0, str(NUMERIC))

REFERENCES = (
    "denoising-diffusion-pytorch",
    "diffusers",
    "flow-matching",
    "k-diffusion",
    "pot",
    "torchcfm",
)

ABOUT = """\
# Agreement with reference libraries

Every row is a test in `tests/reference`: the same task done by `diffusion_lab` and by a public
implementation, with the same noise, and the largest difference of their results (absolute unless
the settings say relative). The network is the exact denoiser of a mixture of three Gaussians in 6
dimensions, or a small fixed function, in float64. "In float64" says that the reference's own
float32 tables and casts were raised to float64, so that only algorithms are compared; other rows
of a reference that computes in float32 have a wider gate. Our time runs from t = 0 (data) to 1
(noise). The table is written by

    uv pip install --no-deps k-diffusion torchcfm
    WRITE_TABLE=1 uv run pytest tests/reference

(the two packages pin an old numpy or pull in much that is not needed, hence `--no-deps`; without
them their tests are skipped). Differences have one digit, since the last bits depend on the
machine.

| name | reference and version | settings | largest difference | gate |
|---|---|---|---|---|
"""

FAULTS = """
## Excluded: where a reference is not followed

In these settings ours agrees with a closed form and the reference does not; each is a test in
`tests/reference/test_faults.py`.

| what | reference and version | ours from the closed form | theirs | why |
|---|---|---|---|---|
"""

ROWS: dict[tuple[str, str, str], tuple[float, float]] = {}
EXCLUDED: dict[tuple[str, str], tuple[float, float, str]] = {}


@pytest.fixture
def compare():
    """Assert that a difference is within its gate, and keep it for the table."""

    def record(name, reference, settings, difference, gate):
        assert difference <= gate, f"{name}: {difference:.3g} from {reference}, gate {gate:g}"
        key = name, reference, settings
        ROWS[key] = max(float(difference), ROWS.get(key, (0.0, gate))[0]), gate

    return record


@pytest.fixture
def exclude():
    """Assert that ours meets a closed form (1e-10) which the reference misses (by 1e-3)."""

    def record(what, reference, ours, theirs, why):
        assert ours <= 1e-10, f"{what}: ours is {ours:.3g} from the closed form"
        assert not theirs <= 1e-3, f"{what}: {reference} is only {theirs:.3g} off: mended?"
        EXCLUDED[what, reference] = ours, theirs, why

    return record


def digit(number):
    """One significant digit."""
    if not number or not math.isfinite(number):
        return f"{number:.0f}"
    text = f"{number:.0e}"
    return text.replace("e-0", "e-").removesuffix("e+00")


def pytest_sessionfinish(session, exitstatus):
    """Write the table where it was asked for and all references were there."""
    if not os.environ.get("WRITE_TABLE") or exitstatus:
        return
    installed = {
        dist.metadata["Name"].lower().replace("_", "-") for dist in metadata.distributions()
    }
    missing = [name for name in REFERENCES if name not in installed]
    if missing:
        print(f"\ntests/numeric/README.md is not written, since {missing} are not installed")
        return
    lines = [
        f"| {name} | {reference} | {settings} | {digit(difference)} | {digit(gate)} |\n"
        for (name, reference, settings), (difference, gate) in ROWS.items()
    ]
    faults = [
        f"| {what} | {reference} | {digit(ours)} | {digit(theirs)} | {why} |\n"
        for (what, reference), (ours, theirs, why) in EXCLUDED.items()
    ]
    text = ABOUT + "".join(lines) + FAULTS + "".join(faults)
    (NUMERIC / "README.md").write_text(text, encoding="utf-8")

"""What the configuration takes from Hydra beyond its documented interface, each in one function.

A failure names the version that is installed: it is Hydra that has changed, not this package.
"""

import re
from pathlib import Path

import hydra
import omegaconf
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from diffusion_lab.config.composing import CONF, raw
from diffusion_lab.config.main import _through_hydra
from diffusion_lab.config.words import Typed, read_override, swept_values

PACKAGE = Path(__file__).parents[2] / "diffusion_lab"
INSTALLED = f"hydra-core {hydra.__version__} with omegaconf {omegaconf.__version__}"


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=0,1", ["0", "1"]),
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("seed=choice(3,4)", ["3", "4"]),
        ("lr=interval(0,1)", []),
        ("sampler=glob(*)", []),
        ("seed=1", None),
        ("label=[3,8]", None),
        ("~callbacks.ema", None),
    ],
)
def test_overrides_are_read(word, values):
    assert swept_values(word) == values, f"{INSTALLED} reads {word} otherwise"


@pytest.mark.parametrize("word", ["seed", "trust=[a=b,c]", "out='x"])
def test_what_is_no_override_is_not_read(word):
    assert read_override(word) is None, f"{INSTALLED} reads {word}"


def test_composing_leaves_a_running_hydra_as_it_is():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        raw("train")
        assert GlobalHydra.instance().hydra is running, f"{INSTALLED} holds its state elsewhere"


def test_the_places_of_groups_are_told():
    choices = raw("train", hydra=True).hydra.runtime.choices
    assert {"sampler", "grid@sampler.grid"} <= set(choices), f"{INSTALLED} tells choices otherwise"


def test_an_error_of_hydra_reaches_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", "seeed=1"])
    typed = Typed.of(["seeed=1"])
    try:
        _through_hydra("train", typed, lambda cfg: 0, None, None)
    except HydraException:
        return
    except SystemExit:
        pytest.fail(f"{INSTALLED} prints its errors and leaves, whatever HYDRA_FULL_ERROR says")
    pytest.fail(f"{INSTALLED} takes a key that is in no yaml")


PRIVATE = re.compile(r"\b(hydra|omegaconf)\._|\.(_get_node|_is_none|_is_interpolation|_value)\(")
INTERNAL = {
    "override_parser": {"words.py"},
    "global_hydra": {"composing.py"},
    "config_store": {"checkpoint_defaults.py"},
}


def test_nothing_private_is_used_and_the_rest_in_one_file_each():
    files = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert not [path for path, text in files.items() if PRIVATE.search(text)]
    for module, allowed in INTERNAL.items():
        users = {path.name for path, text in files.items() if f"hydra.core.{module}" in text}
        assert users == allowed

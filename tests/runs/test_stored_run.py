"""A run goes on with the configuration in its checkpoint, whatever lies beside it."""

import pytest
from omegaconf import OmegaConf

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError
from diffusion_lab.runs.stored_run import literal, words_of

RECIPES = ["seed_000", "seed_001", "seed_002", "seed_003", "seed_003_moons", "seed_004",
           "cfg_guidance", "edm", "noisy_classifier"]  # fmt: skip
OTHERWISE = {
    "as it is": [],
    "other parts": ["optimizer.lr=1e-5", "callbacks.ema=null", "sampler=heun", "data.seed=3"],
    "a class of no group": ["+callbacks.ours._target_=collections.Counter", "trust=[collections]"],
}


def leaves(tree, path=""):
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path, tree


def composed(words, run_dir):
    cfg = compose("train", [*words, f"run_dir={run_dir}"])
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("words", OTHERWISE.values(), ids=OTHERWISE)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_words_compose_to_the_stored_configuration(recipe, words):
    """Also of a run made from Python, which stores no choices; places are those of the new run."""
    stored = composed([f"experiment={recipe}", *words], "old")
    trust = stored["trust"]
    again = dict(leaves(composed([*words_of(stored, {}, trust), f"trust={trust}"], "new")))
    for path, value in leaves(stored):
        expected = value.replace("old", "new", 1) if path.endswith("run_dir") else value
        expected = "new" if path == ".trainer.default_root_dir" else expected
        assert again.get(path, "missing") == expected, path
    assert set(again) == {path for path, _ in leaves(stored)}


def test_trust_is_what_is_typed_now():
    stored = composed(["+callbacks.ours._target_=ours.Callback", "trust=[ours]"], "old")
    with pytest.raises(ConfigError, match=r"callbacks.ours._target_=ours.Callback.*trust=\[ours\]"):
        words_of(stored, {})


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 1e-05, "", "a b", "it's", "\\", "a\\'b", "null", "1", "a,b", "{x}", "=", "é",
     [1, ["x", None]], {"a": {"b": [0.5]}}, "${run_dir}"[1:]],
)  # fmt: skip
def test_a_literal_is_read_as_what_it_was(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={literal(value)}")
    found = OmegaConf.create({"key": parsed.value()})
    assert OmegaConf.to_container(found, resolve=True)["key"] == value

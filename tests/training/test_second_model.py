"""A run that names a second model can be loaded when the file of that one is gone."""

from pathlib import Path

import pytest

import diffusion_lab
from diffusion_lab.checkpoints.format import read_checkpoint, write_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import CheckpointError, ConfigError
from diffusion_lab.sample import sample
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree

STORED = Path(__file__).parents[1] / "net" / "format_1.ckpt"
GUIDANCES = {
    "auto": {
        "_target_": "diffusion_lab.sampling.guidance.second_model.AutoGuidance",
        "weak": {"_target_": "diffusion_lab.loading.StoredModel"},
    },
    "classifier": {
        "_target_": "diffusion_lab.sampling.guidance.second_model.ClassifierGuidance",
        "classifier": {"_target_": "diffusion_lab.training.stored_model.StoredModel"},
    },
}


@pytest.mark.parametrize("name", GUIDANCES)
@pytest.mark.parametrize("left", [None, b"", b"no checkpoint"], ids=["gone", "empty", "foreign"])
def test_the_model_is_there_and_its_guidance_is_refused_when_used(tmp_path, name, left):
    other, file = tmp_path / "other.ckpt", tmp_path / "own.ckpt"
    if left is not None:
        other.write_bytes(left)
    stored = read_checkpoint(STORED)
    guidance = dict(GUIDANCES[name])
    key = next(key for key in guidance if key != "_target_")
    guidance[key] = {**guidance[key], "path": str(other)}
    stored["diffusion_lab"]["config"]["guidance"] = guidance
    write_checkpoint(stored, file)

    model = diffusion_lab.load(file)
    assert model.sample(2, label=1, guidance=ClassifierFree(2.0)).shape == (2, 1, 28, 28)
    with pytest.raises(CheckpointError, match=r"other\.ckpt"):
        model.sample(2, label=1)

    words = [f"ckpt={file}", "num_samples=2", "device=cpu", f"out={tmp_path / 'a.npz'}"]
    assert sample(compose("sample", [*words, "guidance=none"])).exists()
    with pytest.raises(ConfigError, match=r"guidance\.\w+\.path="):
        sample(compose("sample", words))

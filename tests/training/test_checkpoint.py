"""Checkpoint files: verified, atomic, plain data."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.checkpoints.format import (
    changed_values,
    description,
    read_checkpoint,
    read_newest,
    refuse_other_weights,
    weights_of,
    write_checkpoint,
)
from diffusion_lab.errors import CheckpointError
from diffusion_lab.files import remove_leftovers
from diffusion_lab.loading import load


def content(value: float = 1.0) -> dict[str, Any]:
    return {
        "state_dict": {"w": torch.full((64,), value)},
        "diffusion_lab": description({"a": 1}, {"sampler": "ddim"}, {"name": "x"}, 1, False),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    write_checkpoint(content(), path)
    return path


def test_round_trip_and_plain_torch(file: Path) -> None:
    for read in (read_checkpoint(file), torch.load(file, weights_only=True)):
        assert torch.equal(read["state_dict"]["w"], torch.ones(64))
        assert read["diffusion_lab"]["choices"] == {"sampler": "ddim"}
    assert [p.name for p in file.parent.iterdir()] == ["last.ckpt"]


def test_what_a_path_means(
    file: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(file.parent) == file
    with pytest.raises(CheckpointError, match="does not exist"):
        find_checkpoint(tmp_path / "nope")
    assert find_checkpoint(tmp_path) == find_checkpoint("auto", tmp_path) == file
    with pytest.raises(CheckpointError, match="without checkpoints"):
        find_checkpoint(tmp_path_factory.mktemp("empty"))


def test_every_flipped_bit_is_found(file: Path) -> None:
    good = file.read_bytes()
    for at in {*range(0, len(good), 37), *range(len(good) - 110, len(good))}:
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        file.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            read_checkpoint(file)


def test_every_truncation_is_found(file: Path) -> None:
    good = file.read_bytes()
    for length in {*range(0, len(good), 53), *range(len(good) - 100, len(good))}:
        file.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            read_checkpoint(file)


def test_foreign_files_are_refused(file: Path) -> None:
    for bad in (b"", b"hello", b"PK\3\4 something"):
        file.write_bytes(bad)
        with pytest.raises(CheckpointError, match="use another one"):
            read_checkpoint(file)
    torch.save({"w": 1}, file)
    with pytest.raises(CheckpointError, match="not written by diffusion_lab"):
        read_checkpoint(file)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_code_is_never_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    write_checkpoint(content() | {"evil": Evil()}, file)
    for reader in (read_checkpoint, load):
        with pytest.raises(CheckpointError, match="more than plain data"):
            reader(file)
    assert not Path("executed").exists()


def test_targets_in_a_stored_config_are_not_trusted(file: Path) -> None:
    stored = content()
    stored["diffusion_lab"]["config"] = {
        "trust": ["os"],
        "denoiser": {"_target_": "os.system", "command": "true"},
        "model": {"_target_": "os.getcwd"},
    }
    write_checkpoint(stored, file)
    with pytest.raises(ValueError, match=r"os\.system"):
        load(file)


def test_newer_format_and_hand_built(file: Path) -> None:
    stored = content()
    stored["diffusion_lab"]["format"] = 2
    write_checkpoint(stored, file)
    with pytest.raises(CheckpointError, match=r"format 2.*update"):
        read_checkpoint(file)
    stored["diffusion_lab"] |= {"format": 1, "config": {}}
    write_checkpoint(stored, file)
    with pytest.raises(CheckpointError, match="built by hand"):
        load(file)


def test_damaged_ones_are_passed_over(file: Path) -> None:
    write_checkpoint(content(2.0), file.with_name("best.ckpt"))
    assert read_newest(file.parent.parent)[0] == file
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="passed over"):
        assert read_newest(file.parent.parent)[0].name == "best.ckpt"
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="cut short"):
        read_newest(file)[0]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = file.read_bytes()

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open" if call == "open" else f"os.{call}", full)
        with pytest.raises(CheckpointError, match=r"No space left.*MB free.*MB needed.*untouched"):
            write_checkpoint(content(2.0), file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["last.ckpt"]


def test_leftovers_are_removed(file: Path) -> None:
    (file.parent / ".last.ckpt.123.part").write_bytes(b"half")
    remove_leftovers(file.parent)
    assert [p.name for p in file.parent.iterdir()] == ["last.ckpt"]


def test_weights_by_name() -> None:
    raw = content()
    with pytest.warns(UserWarning, match="no averaged weights"):
        assert weights_of(raw, "ema") is raw["state_dict"]
    with pytest.raises(CheckpointError, match="weights='best' must be one of raw"):
        weights_of(raw, "best")
    both = content() | {"current_model_state": {"w": torch.zeros(64)}}
    both["diffusion_lab"] = description({}, {}, None, 1, averaged=True)
    assert weights_of(both, "raw") is both["current_model_state"]
    assert weights_of(both, "ema") is both["state_dict"]


def test_another_network_names_the_keys() -> None:
    stored = content()
    stored["diffusion_lab"]["config"] = {"denoiser": {"width": 48, "heads": 4}}
    with pytest.raises(CheckpointError, match=r"denoiser\.width: 48 -> 64") as caught:
        now = {"denoiser": {"width": 64, "heads": 4}}
        refuse_other_weights(stored, {"w": torch.zeros(65)}, now)
    assert "heads" not in str(caught.value)
    assert changed_values({"a": {"b": 1}}, {"a": {"b": 1}, "c": 2}) == ["c: None -> 2"]


def test_the_seal_survives_a_copy(file: Path) -> None:
    copy = io.BytesIO(file.read_bytes())
    assert torch.load(copy, weights_only=True)["diffusion_lab"]["format"] == 1

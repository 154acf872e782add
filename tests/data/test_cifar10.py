"""CIFAR-10: files are compared with their hash before they are unpickled, and hold data alone."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from diffusion_lab.data.cifar10 import CIFAR10, read_batch
from diffusion_lab.errors import DataError

NAMES = list(CIFAR10.md5)


def batch(seed, count=12):
    """Noise as the official files hold it: rows of red, green and blue, by protocol 2."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [k % 10 for k in range(count)]
    return images, pickle.dumps({b"data": images, b"labels": labels, b"batch_label": b"x"}, 2)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive alone, with its hashes as the official ones, and two strangers in it."""
    contents = {name: batch(seed)[1] for seed, name in enumerate(NAMES)}
    path = tmp_path / "data" / CIFAR10.archive
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        strangers = {"../outside": b"x", f"{CIFAR10.directory}/readme.html": b"x"}
        official = {f"{CIFAR10.directory}/{name}": held for name, held in contents.items()}
        for name, content in (strangers | official).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "md5", hashes)
    monkeypatch.setattr(CIFAR10, "archive_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def module(archive, **kwargs):
    return CIFAR10(archive.parent, validation_size=10, batch_size=8, download=False, **kwargs)


def test_the_archive_is_unpacked_and_read(archive):
    data = module(archive)
    data.prepare_data()
    folder = archive.parent / CIFAR10.directory
    assert sorted(os.listdir(folder)) == sorted(NAMES), "wanted members alone"
    assert sorted(os.listdir(archive.parent.parent)) == ["cache", "data"]
    assert data.splits.train.shape == (60, 3, 32, 32)
    raw = batch(1)[0].reshape(12, 3, 32, 32)
    assert np.array_equal(data.splits.train[12:24].numpy(), raw)
    assert np.array_equal(data.splits.test.numpy(), batch(5)[0].reshape(12, 3, 32, 32))
    assert data.splits.labels.tolist() == [k % 10 for k in range(12)] * 5
    assert data.source["name"] == "cifar10" and set(data.source["sha256"]) == set(NAMES)
    x, label = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert x.shape == (8, 3, 32, 32) and -1 <= x.min() < -0.9 and label.dtype == torch.int64


def test_training_images_alone_are_mirrored(archive):
    data = module(archive)
    data.prepare_data()
    train, held = data.indices()
    whole = {bytes(x.numpy()) for x in data.splits.train[train]}
    mirrored = {bytes(x.flip(-1).contiguous().numpy()) for x in data.splits.train[train]}
    seen = [bytes(x.contiguous().numpy()) for batch, _ in data.train_dataloader() for x in batch]
    assert 0 < sum(x in mirrored for x in seen) < len(seen)
    assert all(x in whole or x in mirrored for x in seen)
    assert torch.equal(next(iter(data.val_dataloader()))[0], data.splits.train[held])
    assert torch.equal(next(iter(data.test_dataloader()))[0], data.splits.test)
    plain = module(archive, horizontal_flip=False)
    assert all(bytes(x.numpy()) in whole for batch, _ in plain.train_dataloader() for x in batch)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])
def test_another_file_is_refused_before_it_is_unpickled(archive, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module(archive).prepare_data()
    (archive.parent / CIFAR10.directory / name).write_bytes(pickle.dumps(Harm()))
    with pytest.raises(DataError, match=rf"{name} is not the official file: its MD5.*again"):
        module(archive).setup()
    assert not (tmp_path / "harm").exists()


def test_a_damaged_archive_is_refused(archive, monkeypatch):
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{CIFAR10.archive} is not the official file"):
        module(archive).prepare_data()
    monkeypatch.setattr(CIFAR10, "archive_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(DataError, match="is damaged"):
        module(archive).prepare_data()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Harm()),
        pickle.dumps({b"data": Harm(), b"labels": [0]}),
        pickle.dumps({b"labels": [0]}),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
        pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [0]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}),
        pickle.dumps({b"data": np.zeros((1, 3000), np.uint8), b"labels": [1]}),
        pickle.dumps([1]),
        batch(0)[1][:-5],
        b"",
        b"<html>please log in</html>",
    ],
)
def test_what_is_no_file_of_cifar10_builds_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1 is no file of CIFAR-10.*again"):
        read_batch(path)
    assert not (tmp_path / "harm").exists()


def test_without_files_one_error_tells_all(tmp_path, monkeypatch):
    calls = []

    def note(urls, target, timeout, expected, packed):
        calls.append((urls, target, expected, packed))
        raise DataError("no route to host")

    monkeypatch.setattr("diffusion_lab.data.download.download", note)
    data = CIFAR10(tmp_path / "nowhere")
    data.prepare_data()
    expected = ("md5", CIFAR10.archive_md5)
    target = tmp_path / "nowhere" / CIFAR10.archive
    assert calls == [([CIFAR10.address], target, expected, False)]
    with pytest.raises(DataError, match=r"^CIFAR-10 is missing \(no route to host\)") as error:
        data.setup()
    for part in (str(tmp_path / "nowhere"), CIFAR10.address, "test_batch", "DIFFUSION_LAB_DATA"):
        assert part in str(error.value)


def test_tables_are_torchvisions():
    from torchvision.datasets import CIFAR10 as Official

    assert list(CIFAR10.md5.items()) == [*map(tuple, Official.train_list + Official.test_list)]
    assert (CIFAR10.address, CIFAR10.archive_md5) == (Official.url, Official.tgz_md5)
    assert (CIFAR10.directory, CIFAR10.archive) == (Official.base_folder, Official.filename)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"shape": [1, 32, 32]}, r"shape=\[1, 32, 32\]"),
        ({"shape": [3, 28, 28]}, r"shape=\[3, 28, 28\]"),
        ({"num_classes": 100}, "num_classes=100.*10 classes"),
        ({"download_timeout": 0}, "download_timeout=0"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, named):
    with pytest.raises(ValueError, match=named):
        CIFAR10("nowhere", **kwargs)

"""Fashion-MNIST and KMNIST: MNIST's format, checked archives, one error where they are missing."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from diffusion_lab.data.download import download
from diffusion_lab.data.mnist import KMNIST, MNIST, FashionMNIST, IdxImages
from diffusion_lab.errors import DataError

KINDS = [FashionMNIST, KMNIST]


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write(kind, root, monkeypatch):
    """40 + 20 images of noise as archives, with their hashes as the official ones."""
    rng, raw = np.random.default_rng(0), root / kind.directory / "raw"
    raw.mkdir(parents=True)
    hashes = {}
    for prefix, count in (("train", 40), ("t10k", 20)):
        parts = {"images-idx3": rng.integers(0, 256, (count, 28, 28)),
                 "labels-idx1": np.arange(count) % 10}  # fmt: skip
        for name, content in parts.items():
            packed = gzip.compress(idx(content))
            hashes[f"{prefix}-{name}-ubyte"] = hashlib.sha256(packed).hexdigest()
            (raw / f"{prefix}-{name}-ubyte.gz").write_bytes(packed)
    monkeypatch.setattr(kind, "packed", hashes)
    monkeypatch.setattr(IdxImages, "counts", (40, 20))
    return raw


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_archives_are_checked_expanded_and_read(kind, tmp_path, monkeypatch):
    raw = write(kind, tmp_path, monkeypatch)
    data = kind(tmp_path, validation_size=8, download=False)
    data.prepare_data()
    x, label = next(iter(data.val_dataloader()))
    assert x.shape == (8, 1, 28, 28) and x.dtype == torch.uint8 and label.dtype == torch.int64
    assert data.source["sizes"] == {"train": 32, "validation": 8, "test": 20}
    assert data.source["name"] == kind.directory.lower() and data.source["fallback"] is None
    name = "t10k-images-idx3-ubyte"
    assert data.source["sha256"][name] == hashlib.sha256((raw / name).read_bytes()).hexdigest()
    assert len(kind.class_names) == len(set(kind.class_names)) == 10


def test_an_archive_that_is_not_the_official_one_is_refused(kind, tmp_path, monkeypatch):
    raw = write(kind, tmp_path, monkeypatch)
    name = "train-labels-idx1-ubyte"
    (raw / f"{name}.gz").write_bytes(gzip.compress(idx(np.zeros(40))))
    with pytest.raises(DataError, match=rf"{name}\.gz is not the official file.*again"):
        kind(tmp_path, download=False).prepare_data()
    assert not (raw / name).exists()


def test_expanded_files_are_checked_for_what_they_hold(kind, tmp_path, monkeypatch):
    raw = write(kind, tmp_path, monkeypatch)
    kind(tmp_path, download=False).prepare_data()
    images = raw / "train-images-idx3-ubyte"
    for shape, found in (((40, 32, 32), r"\[40, 1, 32, 32\]"), ((39, 28, 28), "39 images")):
        images.write_bytes(idx(np.zeros(shape)))
        with pytest.raises(DataError, match=rf"{images.name}.*{found}"):
            kind(tmp_path, validation_size=8).setup()


def test_without_files_one_error_tells_all(kind, tmp_path):
    data = kind(tmp_path / "nowhere", download=False)
    data.prepare_data()
    with pytest.raises(DataError, match=rf"^{kind.title} is missing") as error:
        data.setup()
    text = str(error.value)
    for part in (str(tmp_path / "nowhere" / kind.directory / "raw"), kind.addresses[0], "download="
                 "false", "DIFFUSION_LAB_DATA", *kind.packed):  # fmt: skip
        assert part in text
    assert "\n" not in text and not (tmp_path / "nowhere").exists()


def test_downloads_are_compared_with_the_known_hash(kind, tmp_path, monkeypatch):
    calls = []

    def note(urls, target, timeout, expected, packed):
        calls.append((urls, expected))
        raise DataError("no route to host")

    monkeypatch.setattr("diffusion_lab.data.download.download", note)
    data = kind(tmp_path)
    data.prepare_data()
    first = next(iter(kind.packed))
    assert calls == [([f"{kind.addresses[0]}{first}.gz"], ("sha256", kind.packed[first]))]
    with pytest.raises(DataError, match="no route to host"):
        data.setup()


def test_what_was_sent_is_checked_before_it_is_written(tmp_path):
    source = tmp_path / "sent.gz"
    source.write_bytes(gzip.compress(b"content"))
    right = ("sha256", hashlib.sha256(source.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"file could not be downloaded.*md5.*expected 00"):
        download([source.as_uri()], tmp_path / "file", 5.0, ("md5", "00"))
    assert not (tmp_path / "file").exists()
    download([source.as_uri()], tmp_path / "file", 5.0, right)
    assert (tmp_path / "file").read_bytes() == b"content"
    download([source.as_uri()], tmp_path / "whole", 5.0, right, packed=False)
    assert (tmp_path / "whole").read_bytes() == source.read_bytes()


def test_tables_are_torchvisions():
    """Names, addresses and layout; torchvision's own hashes are MD5."""
    from torchvision import datasets

    for kind, official in ((FashionMNIST, datasets.FashionMNIST), (KMNIST, datasets.KMNIST),
                           (MNIST, datasets.MNIST)):  # fmt: skip
        assert [f"{name}.gz" for name in kind.names] == [name for name, _ in official.resources]
        assert list(kind.addresses) == official.mirrors
        assert kind.directory == official.__name__
    lowered = [name.lower() for name in datasets.FashionMNIST.classes]
    assert [name.lower() for name in FashionMNIST.class_names] == lowered
    assert list(KMNIST.class_names) == datasets.KMNIST.classes


def test_moments_are_the_well_known_ones():
    for kind, mean, std in ((FashionMNIST, 0.2860, 0.3530), (KMNIST, 0.1918, 0.3483)):
        data = kind("nowhere")
        assert data.mean == pytest.approx(2 * mean - 1, abs=6e-4)
        assert data.std == pytest.approx(2 * std, abs=6e-4)
    assert MNIST("nowhere", mean=0.0).mean == 0.0

"""MNIST, the sets in its format and the embedded digits: batches, refusals, missing files."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from diffusion_lab.data import download
from diffusion_lab.data.digits import Digits, embedded_digits
from diffusion_lab.data.mnist import KMNIST, MNIST, FashionMNIST, IdxImages
from diffusion_lab.errors import DataError

NAMES = list(MNIST.sha256)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def noise(folder, counts, ending="", pack=bytes):
    """Random images in MNIST's format; their hashes by name."""
    rng, hashes = np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    for prefix, count in zip(("train", "t10k"), counts, strict=True):
        parts = {"images-idx3": rng.integers(0, 256, (count, 28, 28)),
                 "labels-idx1": np.arange(count) % 10}  # fmt: skip
        for part, content in parts.items():
            name, packed = f"{prefix}-{part}-ubyte", pack(idx(content))
            hashes[name] = hashlib.sha256(packed).hexdigest()
            (folder / f"{name}{ending}").write_bytes(packed)
    return hashes


@pytest.fixture
def small(tmp_path, monkeypatch):
    """60 + 20 images, with their hashes as the official ones."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    monkeypatch.setattr(MNIST, "sha256", noise(folder, (60, 20)))
    return folder


def module(folder, **kwargs):
    kwargs = {"validation_size": 12, "batch_size": 8, "download": False} | kwargs
    return MNIST(folder.parents[1], **kwargs)


def test_batches_labels_and_range(small):
    data = module(small)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch[0].dtype == torch.uint8
    x, label = data.on_after_batch_transfer(batch, 0)
    assert x.shape == (8, 1, 28, 28) and x.dtype == torch.float32
    assert torch.equal(x, batch[0].float() * (2 / 255) - 1)
    assert x.min() >= -1 and x.max() <= 1
    assert label.dtype == torch.int64 and label.shape == (8,)
    raw = np.frombuffer((small / NAMES[0]).read_bytes()[16:], np.uint8).reshape(60, 1, 28, 28)
    assert np.array_equal(data.splits.train.numpy(), raw)
    assert torch.equal(data.splits.labels, torch.arange(60) % 10)


def test_the_split_is_fixed_and_the_test_set_untouched(small):
    one, two = module(small, seed=0), module(small, seed=9)
    train, held = one.indices()
    assert [s.tolist() for s in two.indices()] == [train.tolist(), held.tolist()]
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(60)) and len(held) == 12
    for data in (one, two):
        seen = {bytes(x.numpy()) for batch, _ in data.train_dataloader() for x in batch}
        held_out = [*one.splits.train[held], *one.splits.test]
        assert not seen & {bytes(x.numpy()) for x in held_out}
    orders = [[y.tolist() for _, y in data.train_dataloader()] for data in (one, two)]
    assert orders[0] != orders[1]
    assert len(one.val_dataloader()) == 1
    test = torch.cat([x for x, _ in one.test_dataloader()])
    assert torch.equal(test, one.splits.test)


def test_source_is_plain_and_complete(small):
    source = module(small).source
    assert source["name"] == "mnist" and source["fallback"] is None
    assert source["sizes"] == {"train": 48, "validation": 12, "test": 20}
    assert set(source["sha256"]) == set(NAMES) and source["classes"] == list("0123456789")


def test_padding_is_background(small):
    data = module(small, shape=[1, 32, 32])
    x, _ = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert x.shape[1:] == (1, 32, 32)
    assert (x[:, :, :2] == -1).all() and (x[..., 30:] == -1).all()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def wrong_magic(path):
    path.write_bytes(b"\x00\x00\x0d\x03" + path.read_bytes()[4:])


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def web_page(path):
    path.write_bytes(b"<html>please log in</html>")


@pytest.mark.parametrize("damage", [truncate, empty, wrong_magic, one_bit, web_page])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("when_missing", ["digits", "error"])
def test_damaged_files_are_refused_by_name(small, damage, name, when_missing):
    damage(small / name)
    data = module(small, when_missing=when_missing)
    data.prepare_data()
    with pytest.raises(DataError, match=name) as error:
        data.setup()
    assert "again" in str(error.value) or "labels" in str(error.value)


def rehash(monkeypatch, folder):
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(MNIST, "sha256", hashes)


def test_counts_and_labels_that_do_not_fit_are_refused(small, monkeypatch):
    (small / NAMES[1]).write_bytes(idx(np.arange(30) % 10))
    rehash(monkeypatch, small)
    with pytest.raises(DataError, match=r"60 images.*30 labels"):
        module(small).setup()
    (small / NAMES[1]).write_bytes(idx(np.full(60, 200)))
    rehash(monkeypatch, small)
    with pytest.raises(DataError, match="label 200"):
        module(small).setup()


def test_gzip_files_are_expanded(small):
    for name in NAMES:
        (small / f"{name}.gz").write_bytes(gzip.compress((small / name).read_bytes()))
        (small / name).unlink()
    data = module(small)
    data.prepare_data()
    assert data.source["fallback"] is None
    (small / NAMES[0]).unlink()
    (small / f"{NAMES[0]}.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match=NAMES[0]):
        module(small).prepare_data()


def test_missing_goes_on_with_digits_in_one_line(tmp_path, capsys):
    data = MNIST(tmp_path / "nowhere", download=False)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 1 and "MNIST IS MISSING" in lines[0] and "nowhere" in lines[0]
    assert data.source["name"] == "digits" and data.source["fallback"] in lines[0]
    assert data.source["sizes"] == {"train": 1300, "validation": 197, "test": 300}
    assert not (tmp_path / "nowhere").exists()


def test_missing_as_an_error_says_where(tmp_path):
    data = MNIST(tmp_path / "nowhere", when_missing="error", download=False)
    data.prepare_data()
    with pytest.raises(DataError, match="DIFFUSION_LAB_DATA") as error:
        data.setup()
    assert str(tmp_path / "nowhere" / "MNIST" / "raw") in str(error.value)


def test_a_failed_download_is_the_reason_given(tmp_path, monkeypatch):
    def fail(urls, target, timeout, expected, packed):
        assert timeout == 3.0 and urls[0].endswith(f"{target.name}.gz")
        raise DataError("no route to host")

    monkeypatch.setattr(download, "download", fail)
    data = MNIST(tmp_path, when_missing="error", download_timeout=3.0)
    data.prepare_data()
    with pytest.raises(DataError, match="no route to host"):
        data.setup()


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"shape": [1, 20, 20]}, r"shape=\[1, 20, 20\]"),
        ({"shape": [3, 28, 28]}, "shape="),
        ({"num_classes": 5}, "num_classes=5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"validation_size": 0}, "validation_size=0"),
        ({"when_missing": "guess"}, "when_missing=guess"),
        ({"download_timeout": 0}, "download_timeout=0"),
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, kwargs, named):
    with pytest.raises(ValueError, match=named):
        MNIST(tmp_path, **kwargs)


def test_a_validation_set_of_everything_is_refused(small):
    with pytest.raises(ValueError, match="validation_size=60"):
        module(small, validation_size=60).setup()


def test_without_classes_labels_still_come(small):
    data = module(small, num_classes=None)
    assert next(iter(data.train_dataloader()))[1].shape == (8,)


def test_embedded_digits_look_like_mnist():
    digits = embedded_digits()
    assert digits.train.shape == (1497, 1, 28, 28) and digits.train.dtype == torch.uint8
    assert digits.test_labels.bincount().tolist() == [30] * 10
    assert (digits.train[:, :, :4] == 0).all() and (digits.train[..., 24:] == 0).all()
    ink = digits.train.float().mean() / 255
    assert 0.1 < ink < 0.2, "MNIST's mean is 0.13"
    again = embedded_digits()
    assert torch.equal(again.train, digits.train)
    train = {bytes(x.numpy()) for x in digits.train}
    assert sum(bytes(x.numpy()) in train for x in digits.test) == 0


def test_digits_module_batches():
    data = Digits(batch_size=64)
    data.setup()
    assert len(data.train_dataloader()) == 1300 // 64
    assert data.class_names[7] == "7" and data.shape == (1, 28, 28)


def write(kind, root, monkeypatch):
    """40 + 20 images as archives, with their hashes as the official ones."""
    raw = root / kind.directory / "raw"
    monkeypatch.setattr(kind, "packed", noise(raw, (40, 20), ".gz", gzip.compress))
    monkeypatch.setattr(IdxImages, "counts", (40, 20))
    return raw


@pytest.fixture(params=[FashionMNIST, KMNIST])
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

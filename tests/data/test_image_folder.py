"""Folders of pictures: layouts, splits, decoding, what is kept, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lab.data import decoding
from diffusion_lab.data.decoding import decoded_picture
from diffusion_lab.data.image_folder import ImageFolder, list_images
from diffusion_lab.errors import DataError
from diffusion_lab.generate.image_inputs import known_mask, read_image
from diffusion_lab.pixels import from_bytes


def paint(path, colour=(200, 100, 50), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def fill(root, classes=("cat", "dog"), count=20):
    """A colour each, told by its red; classes by their green."""
    for label, name in enumerate(classes):
        for k in range(count):
            paint(root / name / f"{k:02}.png", (5 * k, 100 * label, 0))
    return root


def folder(root, **kwargs):
    return ImageFolder(root, **({"shape": (3, 8, 8), "cache": root.parent / "kept"} | kwargs))


# ------------------------------------------------------------------------------------- layouts


def test_a_class_is_a_sub_folder(tmp_path):
    fill(tmp_path / "x")
    paint(tmp_path / "x" / "dog" / "deeper" / "more.JPG", (250, 100, 0))
    (tmp_path / "x" / "cat" / "notes.txt").write_text("no picture")
    paint(tmp_path / "x" / ".hidden" / "a.png")
    paint(tmp_path / "x" / "cat" / ".hidden.png")
    paint(tmp_path / "x" / "cat" / ".thumbs" / "a.png")
    (tmp_path / "x" / "empty").mkdir()
    data = folder(tmp_path / "x", num_classes=2, batch_size=4)
    data.prepare_data()
    x, label = next(iter(data.train_dataloader()))
    assert x.shape == (4, 3, 8, 8) and x.dtype == torch.uint8
    assert torch.equal(label, (x[:, 1, 0, 0] > 50).long())
    assert data.class_names == ("cat", "dog")
    assert data.source["sizes"] == {"train": 34, "validation": 3, "test": 4}
    assert data.splits.test_labels.tolist() == [0, 0, 1, 1]
    assert data.source["name"] == "x" and "41 images" in next(iter(data.source["sha256"]))


def test_held_out_images_are_a_fixed_share_of_each_class(tmp_path):
    fill(tmp_path / "x")
    one, two = folder(tmp_path / "x", test_share=0.25), folder(tmp_path / "x", seed=9)
    assert len(one.splits.test) == 10
    assert torch.equal(two.splits.test, folder(tmp_path / "x").splits.test)
    for data in (one, two):
        seen = {bytes(x.numpy()) for x in data.splits.train}
        assert not seen & {bytes(x.numpy()) for x in data.splits.test}
    assert (
        one.indices()[1].tolist() == folder(tmp_path / "x", test_share=0.25).indices()[1].tolist()
    )


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_the_split(tmp_path, test):
    fill(tmp_path / "x" / "train", count=10)
    fill(tmp_path / "x" / test, count=3)
    if test == "test":
        fill(tmp_path / "x" / "val", count=2)
    data = folder(tmp_path / "x", num_classes=2)
    assert len(data.splits.train) == 20 and data.splits.test_labels.tolist() == [0] * 3 + [1] * 3
    paint(tmp_path / "x" / test / "cow" / "a.png")
    with pytest.raises(
        DataError, match=f"train has the classes cat, dog, {test} has cat, cow, dog"
    ):
        list_images(tmp_path / "x")


def test_train_alone_is_split_itself_and_no_class_is_held_out_whole(tmp_path):
    fill(tmp_path / "x" / "train", count=10)
    data = folder(tmp_path / "x", num_classes=2)
    assert data.class_names == ("cat", "dog") and data.splits.labels.bincount().tolist() == [9, 9]
    paint(tmp_path / "x" / "train" / "emu" / "a.png")
    with pytest.raises(DataError, match="emu has one image only"):
        folder(tmp_path / "x", num_classes=3).splits  # noqa: B018
    paint(tmp_path / "x" / "train" / "emu" / "b.png")
    kept = folder(tmp_path / "x", num_classes=3, test_share=0.8).splits
    assert kept.labels.bincount().tolist() == [2, 2, 1]


def test_images_that_lie_flat_have_no_classes(tmp_path):
    for k in range(10):
        paint(tmp_path / "x" / f"{k}.png", (20 * k, 0, 0))
    data = folder(tmp_path / "x")
    assert data.class_names == () and data.splits.labels.tolist() == [0] * 9
    with pytest.raises(ValueError, match=r"num_classes=2: .*no sub-folders.*num_classes=null"):
        folder(tmp_path / "x", num_classes=2).setup()


@pytest.mark.parametrize("beside", [True, False])
def test_celeba_as_torchvision_keeps_it(tmp_path, beside):
    root = tmp_path / "celeba" / "img_align_celeba"
    for k in range(1, 9):
        paint(root / f"00000{k}.jpg", (30 * k, 0, 0), (178, 218))
    where = root.parent if beside else root
    lines = [f"00000{k}.jpg {0 if k < 5 else 1 if k < 7 else 2}" for k in range(1, 9)]
    (where / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    data = folder(root, crop=140, shape=(3, 16, 16))
    assert len(data.splits.train) == 6
    reds = data.splits.test[:, 0].float().mean((1, 2)).round().tolist()
    assert np.allclose(reds, [210, 240], atol=4), "JPEG's loss aside"
    (where / "list_eval_partition.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match=r"no part .* for 1 of 8 images, e\.g\. 000001\.jpg"):
        list_images(root)


def test_folders_that_are_not_understood_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.folder=.*nowhere: there is no such folder"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"no images in it.*\.png, \.jpg"):
        list_images(tmp_path)
    paint(tmp_path / "cat" / "a.png")
    paint(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"both in it \(b\.png\) and in sub-folders \(cat\)"):
        list_images(tmp_path)


def test_a_wrong_number_of_classes_is_answered_with_the_right_one(tmp_path):
    fill(tmp_path / "x", classes=("a", "b", "c"), count=4)
    with pytest.raises(ValueError, match=r"num_classes=10: .* 3 sub-folders.*num_classes=3"):
        folder(tmp_path / "x", num_classes=10).prepare_data()


# ------------------------------------------------------------------------------------ decoding


def test_pictures_are_cut_about_the_centre_and_resized(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decoded_picture(tmp_path / "wide.png", (3, 10, 10)) == 255).all()
    whole = decoded_picture(tmp_path / "wide.png", (3, 20, 60))
    assert np.array_equal(whole.transpose(1, 2, 0), wide), "no resampling where none is needed"
    oblong = decoded_picture(tmp_path / "wide.png", (1, 10, 20))
    assert oblong.shape == (1, 10, 20) and (oblong[0, :, 8:12] == 255).all()
    assert oblong[0, 0, 0] == 0 and oblong[0, 0, -1] == 0
    assert (decoded_picture(tmp_path / "wide.png", (3, 4, 4), crop=12) == 255).all()


def test_resizing_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = decoded_picture(tmp_path / "stripes.png", (1, 16, 16))
    assert np.abs(small.astype(float) - 127.5).max() < 20


def pictures(folder):
    """Files of 4 x 4 pixels of every kind -> what a pixel of each is, (row, column) -> value."""
    corner = Image.new("RGB", (4, 4))
    corner.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    corner.save(folder / "turned.png", exif=exif)
    Image.new("RGBA", (4, 4), (200, 200, 200, 0)).save(folder / "clear.png")
    Image.new("LA", (4, 4), (200, 255)).save(folder / "opaque.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(folder / "palette.gif", transparency=0)
    Image.fromarray(np.full((4, 4), 128 * 257, np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((4, 4), 64 * 257, np.int32)).save(folder / "deep.tif")
    Image.fromarray(np.full((4, 4), 0.2, np.float32)).save(folder / "float.tif")
    Image.new("1", (4, 4), 1).save(folder / "bits.png")
    return {
        "turned.png": 255, "clear.png": 0, "opaque.png": 200, "palette.gif": 255,
        "deep.png": 128, "deep.tif": 64, "float.tif": 51, "bits.png": 255,
    }  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_is_read_alike_everywhere(channels, tmp_path):
    """Training, `image=` and `known=` have one decoder."""
    for name, value in pictures(tmp_path).items():
        pixels = decoded_picture(tmp_path / name, (channels, 4, 4))
        assert pixels.shape == (channels, 4, 4) and (pixels[:, 0, 3] == value).all(), name
        assert torch.equal(
            read_image(tmp_path / name, (channels, 4, 4)), from_bytes(torch.tensor(pixels))
        )
        mask = known_mask(str(tmp_path / name), (channels, 4, 4))
        assert torch.equal(mask[0] == 1, torch.tensor(pixels[0] > 127)), name


@pytest.mark.parametrize("values", [[-1.0, 1.0], [0.0, 255.0], [0.0, float("nan")], [0, 70000]])
def test_pixels_out_of_the_range_of_their_mode_are_refused(values, tmp_path):
    dtype = np.int32 if isinstance(values[1], int) else np.float32
    Image.fromarray(np.array([values] * 2, dtype)).save(tmp_path / "x.tif")
    for read in (decoded_picture, read_image):
        with pytest.raises(ValueError, match=r"mode [IF] from .* must be in 0 \.\. "):
            read(tmp_path / "x.tif", (1, 2, 2))


def test_damaged_files_are_told_in_one_error(tmp_path):
    fill(tmp_path / "x")
    for k in range(7):
        (tmp_path / "x" / "cat" / f"bad{k}.png").write_bytes(b"no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x" / "dog" / "00.png")
    whole = (tmp_path / "x" / "dog" / "00.png").read_bytes()
    (tmp_path / "x" / "dog" / "00.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^8 of 47 images cannot be used.*bad0\.png") as error:
        folder(tmp_path / "x").prepare_data()
    assert "and 3 more" in str(error.value) and not (tmp_path / "kept").exists()
    paint(tmp_path / "y" / "a.png", size=(10, 30))
    with pytest.raises(DataError, match=r"10 x 30 pixels, fewer than data\.crop=20"):
        folder(tmp_path / "y", crop=20).prepare_data()


# ---------------------------------------------------------------------------------------- kept


def no_decoding(*args, **kwargs):
    raise AssertionError("decoded again")


def test_images_are_decoded_once(tmp_path, monkeypatch):
    fill(tmp_path / "x")
    first = folder(tmp_path / "x").splits
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decoded_picture", no_decoding)
        again = folder(tmp_path / "x")
        again.prepare_data()
        assert torch.equal(again.splits.train, first.train)
        assert again.source["sha256"] == first.sha256
        for changes in ({"shape": (3, 4, 4)}, {"shape": (1, 8, 8)}, {"crop": 6}):
            with pytest.raises(DataError, match="decoded again"):
                folder(tmp_path / "x", **changes).prepare_data()
    paint(tmp_path / "x" / "cat" / "00.png", (255, 255, 255))
    changed = folder(tmp_path / "x")
    assert changed.source["sha256"] != first.sha256


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"x" + b[1:]])
def test_a_damaged_copy_is_made_anew(tmp_path, damage):
    fill(tmp_path / "x")
    first = folder(tmp_path / "x").splits
    (kept,) = (tmp_path / "kept").glob("images-*.bin")
    sound = kept.read_bytes()
    kept.write_bytes(damage(sound))
    assert torch.equal(folder(tmp_path / "x").splits.train, first.train)
    assert kept.read_bytes() == sound


def test_a_cache_that_cannot_be_written_costs_decoding_alone(tmp_path):
    fill(tmp_path / "x")
    (tmp_path / "file").write_text("in the way")
    assert len(folder(tmp_path / "x", cache=tmp_path / "file").splits.train) == 36


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"shape": (2, 8, 8)}, r"shape=\[2, 8, 8\]"),
        ({"shape": (3, 8)}, r"shape=\[3, 8\]"),
        ({"crop": 0}, "crop=0"),
        ({"test_share": 1.0}, r"test_share=1\.0"),
        ({"validation_size": 0}, "validation_size=0"),
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, kwargs, named):
    with pytest.raises(ValueError, match=named):
        folder(tmp_path / "x", **kwargs)

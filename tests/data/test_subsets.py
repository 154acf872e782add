"""`train_images` and `exclude`: which training samples are left, and how records tell of it."""

from functools import cache

import pytest
import torch
from commands import LINES, typed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_lab.checkpoints.format import read_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.data.digits import Digits
from diffusion_lab.data.image_folder import ImageFolder
from diffusion_lab.data.subset import Subset
from diffusion_lab.data.toy import Moons
from diffusion_lab.errors import ArgumentError, DataError
from diffusion_lab.files import read_record

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor)
SEEDS = st.integers(0, 5)


def chosen(labels, count=None, exclude=(), seed=0):
    subset = Subset(count, tuple(exclude), seed)
    return subset.of(labels, torch.arange(len(labels)).flip(0))


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_a_subset_is_contained_in_every_larger_one(labels, seed, data):
    few = data.draw(st.integers(1, len(labels)))
    many = data.draw(st.integers(few, len(labels)))
    smaller, larger = (chosen(labels, count, seed=seed).tolist() for count in (few, many))
    assert len(set(smaller)) == few and len(larger) == many
    assert set(smaller) <= set(larger)
    assert smaller == sorted(smaller, reverse=True), "the candidates' order"


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_classes_differ_by_one_at_most_unless_one_has_no_more(labels, seed, data):
    count = data.draw(st.integers(1, len(labels)))
    taken = labels[chosen(labels, count, seed=seed)].bincount(minlength=5)
    there = labels.bincount(minlength=5)
    for label in range(5):
        assert taken[label] == there[label] or taken[label] >= taken.max() - 1


@given(labels=LABELS, exclude=st.sets(st.integers(0, 4), max_size=4))
def test_classes_left_out_are_not_there_and_all_others_are(labels, exclude):
    kept = [k for k, label in enumerate(labels.tolist()) if label not in exclude]
    if not kept:
        with pytest.raises(DataError):
            chosen(labels, exclude=exclude)
        return
    assert sorted(chosen(labels, exclude=exclude).tolist()) == kept


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_the_hash_is_that_of_the_choice(labels, seed, data):
    count = data.draw(st.integers(1, len(labels) - 1))
    subset = Subset(count, (), seed)
    hashes = {subset.sha256(chosen(labels, number, seed=seed)) for number in (count, len(labels))}
    assert len(hashes) == 2
    assert subset.sha256(chosen(labels, count, seed=seed)) in hashes


@cache
def digits(**arguments):
    return Digits(batch_size=8, **dict(arguments))


def images_of(loader):
    return {bytes(image.numpy()) for batch, _ in loader for image in batch}


@pytest.mark.parametrize("more", [{}, {"exclude": (4, 7)}], ids=str)
def test_a_data_set_trains_on_its_subset_alone(more):
    data = digits(train_images=64, **more)
    train, validation = data.indices()
    whole, same = digits().indices()
    assert torch.equal(validation, same)
    assert len(train) == 64 and set(train.tolist()) <= set(whole.tolist())
    counts = data.splits.labels[train].bincount(minlength=10)
    kept = torch.tensor([label not in more.get("exclude", ()) for label in range(10)])
    assert counts[~kept].sum() == 0 and counts[kept].max() - counts[kept].min() <= 1
    seen = images_of(data.train_dataloader())
    assert len(seen) == 64
    assert not seen & images_of(data.test_dataloader())
    assert not seen & images_of(data.val_dataloader())


def test_validation_and_test_keep_the_classes_that_are_left_out():
    data = digits(exclude=(4,))
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert 4 in torch.cat([label for _, label in loader])


def test_the_seed_decides_the_subset():
    one, two = (digits(train_images=64, seed=seed).indices()[0].tolist() for seed in (0, 1))
    assert set(one) != set(two)


def test_the_source_tells_the_subset_and_is_as_ever_without():
    plain = digits().source
    assert "subset" not in plain and list(plain["sha256"]) == ["sklearn.datasets.load_digits"]
    others = [{"train_images": 64}, {"train_images": 65}, {"exclude": (4,)},
              {"train_images": 64, "seed": 1}]  # fmt: skip
    sources = [plain, *(digits(**other).source for other in others)]
    assert len({str(sorted(source["sha256"].items())) for source in sources}) == 5
    assert sources[1]["subset"] == {"train_images": 64, "exclude": [], "seed": 0}
    assert sources[1]["sizes"] == {"train": 64, "validation": 197, "test": 300}


def test_points_have_subsets_too():
    data = Moons(train_size=200, test_size=10, validation_size=20, train_images=50)
    assert data.splits.labels[data.indices()[0]].bincount().tolist() == [25, 25]


def test_images_without_classes(tmp_path):
    for number in range(20):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number}.png")
    arguments = {"shape": [1, 4, 4], "validation_size": 2, "batch_size": 1, "cache": tmp_path / "c"}
    few, more = (
        ImageFolder(tmp_path, train_images=n, **arguments).indices()[0].tolist() for n in (5, 9)
    )
    assert len(few) == 5 and set(few) < set(more)
    with pytest.raises(DataError, match=r"exclude=\[0\].*no classes"):
        ImageFolder(tmp_path, exclude=[0], **arguments).setup()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"train_images": 0}, "train_images=0 must be an integer of at least 1"),
        ({"exclude": [10]}, "no class 10; the classes are 0 to 9"),
        ({"exclude": [-1]}, r"exclude=\[-1\] must be a list, each entry an integer of at least 0"),
        ({"exclude": list(range(10))}, "all classes are left out"),
        ({"train_images": 1301}, "there are 1300 training samples; use at most 1300"),
        ({"train_images": 1300, "exclude": [4]}, "once the classes of exclude are left out"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises((DataError, ArgumentError), match=words):
        Digits(**arguments).setup()


def test_a_batch_larger_than_the_subset_is_told():
    with pytest.raises(DataError, match="64 samples do not fill one batch"):
        Digits(batch_size=128, train_images=64).train_dataloader()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["data.train_images=0"], "data.train_images=0 must be an integer of at least 1"),
        (["data.exclude=4"], "data.exclude=4 must be a list"),
        (["data.exclude=[10]"], "there is no class 10"),
        (["data.exclude=[0,1,2,3,4,5,6,7,8,9]"], "leaves out all classes"),
    ],
)
def test_faults_known_at_check_time(words, fault):
    (found,) = check(compose("train", ["experiment=quickstart", *words]), build=False)
    assert fault in found


TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none",
    "denoiser.base_channels=8", "denoiser.heads=2", "data.batch_size=8", "sampler.steps=2",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "callbacks.samples.num_samples=2", "callbacks.record.report=false",
]  # fmt: skip


def test_the_command_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data.train_images=200", "data.exclude=[4]"]
    assert f"python -m diffusion_lab.train {' '.join(words)}" in LINES
    status, told = typed("train", *TINY, *words, "run_dir=run")
    assert status == 0, told
    record = read_record(tmp_path / "run" / "summary.json")["data"]
    assert record["sizes"]["train"] == 200 and record["subset"]["exclude"] == [4]
    stored = read_checkpoint(tmp_path / "run")["diffusion_lab"]["data"]
    assert stored == record and "training subset" in stored["sha256"]
    status, told = typed("train", *TINY, "data.train_images=5000", "run_dir=other")
    assert status == 2 and "use at most 1300" in told and "Traceback" not in told

"""TensorLoader: the order is a function of (seed, epoch), ranks share it, a stop loses nothing."""

from itertools import chain

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.random import coins, permutation


def rows(loader):
    return [int(i) for (batch,) in loader for i in batch]


def make(n=23, batch_size=5, **kwargs):
    return TensorLoader((torch.arange(n),), batch_size, **kwargs)


@given(st.integers(1, 200), st.integers(0, 2**31), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_an_epoch_is_a_permutation(n, seed, epoch):
    loader = make(n, 7, seed=seed, drop_last=False)
    loader.set_epoch(epoch)
    assert sorted(rows(loader)) == list(range(n))


def test_order_depends_on_seed_and_epoch_alone():
    loader = make(200, seed=3)
    loader.set_epoch(2)
    torch.manual_seed(1)
    first = rows(loader)
    torch.manual_seed(2)
    assert rows(loader) == first
    # keys are hashed together, never added: (3, 2) is not (2, 3) or (4, 1)
    for seed, epoch in [(3, 1), (2, 3), (4, 1), (5, 0)]:
        other = make(200, seed=seed)
        other.set_epoch(epoch)
        assert rows(other) != first


def test_the_order_is_pinned():
    """Changing the order would break the resumption of every stored run."""
    assert permutation(8, "epoch order", 0, 0).tolist() == [7, 0, 1, 3, 6, 5, 2, 4]


def flipping(batch_size=6, n=24, **kwargs):
    """Images of one row, number i is [10 i, 10 i + 1]: a mirrored one falls."""
    images = 10 * torch.arange(n).view(n, 1, 1, 1) + torch.arange(2)
    return TensorLoader((images, torch.arange(n)), batch_size, flip=True, **kwargs)


def seen(loader):
    """(number, is mirrored) of each image, a list a batch."""
    batches = []
    for x, number in loader:
        first = x[:, 0, 0, 0] - 10 * number
        assert torch.equal(x[:, 0, 0, 1] - 10 * number, 1 - first), "both pixels are there"
        batches.append(list(zip(number.tolist(), first.bool().tolist(), strict=True)))
    return batches


def test_about_half_are_mirrored_and_others_in_each_epoch():
    loader = flipping(n=4000, batch_size=100, seed=1)
    epochs = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        epochs.append(dict(pair for batch in seen(loader) for pair in batch))
        # 4,000 fair coins: five standard deviations are 158
        assert abs(sum(epochs[-1].values()) - 2000) < 158
    alike = sum(epochs[0][k] == epochs[1][k] for k in range(4000))
    assert abs(alike - 2000) < 158
    assert loader.tensors[0][0].flatten().tolist() == [0, 1], "the images stay as they are"


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_epoch_mirrors_the_same_images(stop):
    loader = flipping(seed=2)
    loader.set_epoch(3)
    whole = seen(loader)
    other = flipping(seed=2)
    other.load_state_dict({"epoch": 3, "batch": stop})
    assert seen(other) == whole[stop:]
    torch.manual_seed(0)
    assert seen(flipping(seed=2)) != whole, "another epoch"


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_processes_mirrors_the_same_images(world):
    alone = seen(flipping(seed=5, batch_size=6))
    ranks = [
        seen(flipping(seed=5, batch_size=6 // world, rank=r, world_size=world))
        for r in range(world)
    ]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone


def test_which_are_mirrored_is_pinned():
    """Changing it would break the resumption of stored runs; the order is no part of it."""
    found = coins(8, "horizontal flip", 0, 0)
    assert found.tolist() == [True, False, True, False, True, False, True, True]
    assert not torch.equal(coins(8, "horizontal flip", 0, 1), found)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 120), st.booleans())
@settings(max_examples=100, deadline=None)
def test_ranks_are_disjoint_and_together_one_process(world, batch_size, extra, drop_last):
    n = world * batch_size + extra
    loaders = [
        make(n, batch_size, drop_last=drop_last, rank=r, world_size=world) for r in range(world)
    ]
    assert len({len(loader) for loader in loaders}) == 1
    per_rank = [[b[0].tolist() for b in loader] for loader in loaders]
    assert {len(batches) for batches in per_rank} == {len(loaders[0])}
    assert all(batch for batches in per_rank for batch in batches)
    union = sorted(i for batches in per_rank for batch in batches for i in batch)
    assert len(set(union)) == len(union)
    if drop_last:
        single = make(n, batch_size * world)
        for together, *parts in zip(single, *per_rank, strict=True):
            assert [i for part in parts for i in part] == together[0].tolist()
    else:
        assert union == list(range(n))


def test_no_shuffle_keeps_the_order_and_repeats():
    loader = make(shuffle=False, drop_last=False)
    assert rows(loader) == rows(loader) == list(range(23))


@pytest.mark.parametrize("stop", range(5))
def test_state_goes_on_with_the_next_batch(stop):
    loader = make(seed=1)
    loader.set_epoch(4)
    whole = [b[0].tolist() for b in loader]
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    state = loader.state_dict() if stop else {"epoch": 4, "batch": 0}
    other = make(seed=1)
    other.load_state_dict(state)
    iter(other)  # Lightning makes an iterator before it announces the epoch
    other.set_epoch(4)
    assert [b[0].tolist() for b in other] == whole[stop:]
    assert [b[0].tolist() for b in other] == whole  # the position is used once
    other.load_state_dict(state)
    other.set_epoch(5)
    assert len(list(other)) == len(other)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 24}, "batch_size=24.*at most 23"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"batch_size": 12, "world_size": 2}, "at most 11"),
    ],
)
def test_bad_sizes_are_refused_by_name(kwargs, named):
    with pytest.raises(ValueError, match=named):
        make(**kwargs)


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        TensorLoader((torch.zeros(3), torch.zeros(4)), 1)


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.global_step, batch[0].tolist()))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(pl.Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(loader, folder, save_at=-1, resume=None):
    trainer = pl.Trainer(
        max_steps=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[SaveAt(save_at, folder / "stop.ckpt")],
    )
    module = Recorder()
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True if resume else None)
    return module.seen


@pytest.mark.parametrize("stop", [2, 4, 5, 8])
def test_lightning_resumes_in_the_middle_of_an_epoch(tmp_path, stop):
    """4 batches an epoch: inside an epoch, after its last batch, one later, at the second end."""
    whole = fit(make(seed=1), tmp_path, save_at=stop)
    assert whole[0][1] != whole[4][1], "epochs differ in order"
    resumed = fit(make(seed=1), tmp_path, resume=tmp_path / "stop.ckpt")
    assert resumed == whole[stop:]

"""The table of final samples: requested class, predicted class, and what it costs nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import wandb_file
from tiny import CLASSES, Dashboard, TinyData, tiny_fit, tiny_module

from diffusion_lab.data.digits import Digits
from diffusion_lab.metrics import features
from diffusion_lab.metrics.quick import cached_predictor, quick_scorer
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.training.callbacks import FinalSamples
from diffusion_lab.training.loggers import MetricsFile, TensorBoardRun, WandbRun


def reading(data: Any) -> Any:
    """Reads class 2 in every sample, with 0.75."""
    assert isinstance(data, TinyData)
    return lambda samples: torch.tensor([[0.1, 0.15, 0.75]]).expand(len(samples), CLASSES)


def fit(folder: Path, callback: FinalSamples, *loggers: Any, **changes: Any) -> Any:
    module = tiny_module(**changes)
    loggers = [MetricsFile(folder), *loggers]
    tiny_fit(folder, callback, logger=loggers, max_epochs=1, module=module)
    return module


def test_the_table_holds_what_was_asked_and_what_is_read(tmp_path: Path) -> None:
    shown = Dashboard()
    fit(tmp_path, FinalSamples(reading, num_samples=5), shown)
    ((columns, rows),) = shown.of("table", "final_samples")
    assert columns == ["image", "requested", "predicted", "confidence"]
    assert [row[1:3] for row in rows] == [[k % CLASSES, 2] for k in range(5)]
    assert all(row[3] == pytest.approx(0.75) for row in rows)
    assert rows[0][0].size == (8, 8) and shown.of("picture", "samples/final")
    assert {entry[1] for entry in shown.seen if entry[0] in ("picture", "table")} == {19}


def test_without_a_classifier_two_columns_are_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Dashboard()
    fit(tmp_path, FinalSamples(lambda data: None, num_samples=2), shown)
    ((_, rows),) = shown.of("table", "final_samples")
    assert [row[1:] for row in rows] == [[0, None, None], [1, None, None]]
    assert "diffusion_lab.evaluate ckpt=RUN" in capsys.readouterr().out


def test_nothing_is_drawn_where_nobody_takes_it(tmp_path: Path) -> None:
    callback = FinalSamples(lambda data: pytest.fail("read without need"))
    fit(tmp_path, callback)
    fit(tmp_path / "b", callback, Dashboard(), sampler=None)
    with pytest.raises(ValueError, match=r"^num_samples=0"):
        FinalSamples(reading, num_samples=0)


def test_both_dashboards_show_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    run = WandbRun(tmp_path / "w")
    fit(tmp_path / "w", FinalSamples(reading, num_samples=4), run, TensorBoardRun(tmp_path / "t"))
    found = wandb_file.read(tmp_path / "w")
    assert found.of("final_samples/nrows") == [4] and found.of("samples/final/_type")
    events = accumulator(str(tmp_path / "t" / "tensorboard")).Reload()
    text = events.Tensors("final_samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == "| image | requested | predicted | confidence |"
    assert text.splitlines()[3] == "| 1 | 1 | 2 | 0.75 |"
    assert [event.step for event in events.Images("samples/final")] == [19]
    assert events.Tensors("run/text_summary") and events.Tensors("config/text_summary")


def test_the_classifier_is_read_and_never_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=40, batch_size=32))
    data = Digits()
    data.prepare_data()
    assert cached_predictor(data, tmp_path / "data") is None and not [*tmp_path.rglob("*.pt")]
    quick_scorer(data, tmp_path / "data")
    reader = cached_predictor(data, tmp_path / "data")
    assert reader is not None
    read = reader(data.splits.train[:100].float() / 127.5 - 1)
    assert read.shape == (100, 10) and torch.allclose(read.sum(1), torch.ones(100))
    assert (read.argmax(1) == data.splits.labels[:100]).float().mean() > 0.5

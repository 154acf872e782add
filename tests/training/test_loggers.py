"""Loggers in a thread of their own: nothing they do reaches the training."""

from __future__ import annotations

import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import wandb_file
from PIL import Image
from tiny import Dashboard, TinyData, tiny_module, tiny_trainer

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.checking import check
from diffusion_lab.training.callbacks import RunRecord, SampleGrid, Speed
from diffusion_lab.training.loggers import (
    BackgroundLogger,
    MetricsFile,
    TensorBoardRun,
    WandbRun,
    log_images,
    log_table,
)


def fit(folder: Path, logger: BackgroundLogger, **changes: Any) -> Any:
    module = tiny_module()
    module.describe_run({"optimizer": {"lr": 0.01}, "seed": 3}, {})
    loggers = [MetricsFile(folder), logger]
    trainer = tiny_trainer(folder, SampleGrid(folder, 3), logger=loggers, **changes)
    trainer.fit(module, datamodule=TinyData())
    return trainer


def test_everything_arrives_in_order_in_another_thread(tmp_path: Path) -> None:
    logger = Dashboard()
    fit(tmp_path, logger)
    assert logger.thread is not threading.main_thread()
    assert logger.config == {"optimizer": {"lr": 0.01}, "seed": 3}
    kinds = [entry[:2] for entry in logger.seen]
    assert kinds[-1] == ("close", "success")
    steps = [step for kind, step in kinds if kind == "values"]
    assert steps == sorted(steps) and set(range(4, 60, 5)) <= set(steps)
    assert [step for kind, step in kinds if kind == "picture"] == [19, 39, 59]
    rates = [e[2]["train/lr"] for e in logger.seen if e[0] == "values" and "train/lr" in e[2]]
    assert len(rates) == 12 and not logger.abandoned


def test_a_logger_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    event = threading.Event()
    logger = Dashboard(patience=0.05, wait=event)
    with pytest.warns(UserWarning, match="did not take everything within patience=0.05 s") as all_:
        trainer = fit(tmp_path, logger, max_epochs=1)
    assert trainer.global_step == 20 and logger.abandoned
    assert not logger.seen and not event.is_set()  # all of the training ran while it was stuck
    assert sum("patience" in str(w.message) for w in all_) == 1
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_metrics({"another fit": 1.0}, 1)  # is left out: the thread has the logger
        logger.finalize("success")
        event.set()
        for thread in threading.enumerate():
            if thread.name == "Dashboard writer":
                thread.join(30)
    assert logger.seen[-1] == ("close", "success")  # late, but whole
    assert ("values", 1, {"another fit": 1.0}) not in logger.seen


def test_a_logger_that_fails_later_is_closed_and_said_once(tmp_path: Path) -> None:
    logger = Dashboard(fail=2)
    with pytest.warns(UserWarning, match=r"Dashboard failed .*ConnectionError: gone") as caught:
        trainer = fit(tmp_path, logger, max_epochs=2)
    assert sum("Dashboard" in str(w.message) for w in caught) == 1
    assert trainer.global_step == 40 and len(logger.seen) == 2


def test_a_picture_may_be_closed_and_a_table_changed_afterwards() -> None:
    event = threading.Event()
    logger = Dashboard(wait=event)
    picture, rows = Image.new("L", (3, 2)), [["a", None]]
    log_images([logger], "p", picture, 4)
    log_table([logger], "t", ["x", "y"], rows, 5)
    picture.close()
    rows[0][0] = "b"
    event.set()
    logger.finalize("success")
    assert logger.seen[0][:3] == ("picture", 4, "p") and logger.seen[0][3].getpixel((2, 1)) == 0
    assert logger.seen[1] == ("table", 5, "t", ["x", "y"], [["a", None]])


def test_each_fit_has_its_own_run() -> None:
    logger = Dashboard()
    logger.log_metrics({"x": 1.0}, 1)
    logger.finalize("success")
    logger.finalize("success")
    logger.log_metrics({"x": 2.0}, 2)
    logger.finalize("failed")
    assert logger.seen == [
        *(("values", 1, {"x": 1.0}), ("close", "success")),
        *(("values", 2, {"x": 2.0}), ("close", "failed")),
    ]


@pytest.mark.parametrize("kind", [TensorBoardRun, WandbRun])
def test_negative_patience_is_refused(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"^patience=-1"):
        kind(tmp_path, patience=-1)


def test_tensorboard_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    (fault,) = check(compose("train", ["logger=tensorboard"]), build=False)
    assert fault.startswith("logger=tensorboard needs the package tensorboard")


def test_wandb_offline_holds_history_pictures_config_and_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    logger = WandbRun(run, group="g", job_type="train", tags=["a"], log_checkpoints="last")
    record = RunRecord(run, report=False)
    module = tiny_module()
    module.describe_run({"optimizer": {"lr": 0.01}, "seed": 3}, {})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*WandbRun.*")
        trainer = tiny_trainer(
            run,
            SampleGrid(run, 3),
            Speed(),
            record,
            logger=[MetricsFile(run), logger],
            max_epochs=2,
        )
        trainer.fit(module, datamodule=TinyData())
    found = wandb_file.read(run)
    assert (found.run.run_group, found.run.job_type, list(found.run.tags)) == ("g", "train", ["a"])
    assert found.run.display_name == "run"
    assert found.config["optimizer"] == {"lr": 0.01} and found.config["seed"] == 3
    assert found.config["data/sha256"] == TinyData.source["sha256"]
    assert found.config["hardware/device"] == "cpu" and found.config["parameters"] > 0
    assert "code/revision" in found.config
    assert found.of("train/loss") and len(found.of("val/loss")) == 2
    assert [row["trainer/global_step"] for row in found.history if "samples/_type" in row] == [
        19,
        39,
    ]
    assert len(found.media("images/samples_*.png")) == 2
    assert len(found.media("table/loss_by_level_table_*.json")) == 1
    assert found.summary["status"] == "finished" and found.summary["images_per_second"] > 0
    (artifact,) = [artifact for artifact in found.artifacts if artifact.type == "model"]
    (entry,) = artifact.manifest.contents
    assert entry.path == "last.ckpt" and "last" in artifact.aliases
    stored = Path(entry.local_path)
    assert stored.is_relative_to(run) and stored.samefile(run / "checkpoints" / "last.ckpt")


def test_a_resumed_run_continues_its_run_at_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    ids: list[str] = []
    for folder in ("run", "run", "other"):
        logger = WandbRun(tmp_path / folder)
        logger.post(lambda logger=logger: ids.append(logger.experiment.id))
        logger.finalize("success")
    assert ids[0] == ids[1] != ids[2]
    assert wandb_file.read(tmp_path / "other").run.run_id == ids[2]


def test_wandb_without_a_server_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb").teardown()  # what it read of the environment so far
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with socket.socket() as deaf:  # accepts, and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        logger = WandbRun(tmp_path, offline=False, patience=30.0)
        monkeypatch.setattr(logger, "answer_within", 1.0)
        with pytest.warns(UserWarning, match=r"goes on offline, `wandb sync"):
            logger.log_metrics({"x": 1.0}, 1)
            logger.finalize("success")
    assert wandb_file.read(tmp_path).of("x") == [1.0]
    monkeypatch.delenv("WANDB_BASE_URL")
    again = WandbRun(tmp_path / "next")
    again.log_metrics({"x": 2.0}, 1)
    log_table([again], "t", ["image", "n"], [[Image.new("L", (4, 4)), None]], 1)
    again.finalize("success")
    found = wandb_file.read(tmp_path / "next")
    assert found.of("x") == [2.0] and found.of("t/nrows") == [1]
    files = [Path(e.local_path) for a in found.artifacts for e in a.manifest.contents]
    assert len(files) == 2 and all(f.is_relative_to(tmp_path) and f.is_file() for f in files)

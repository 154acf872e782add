"""Jobs that are pruned: what the pruner sees, and what it decides."""

import json
from types import SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna")

from diffusion_lab.training.callbacks.pruning import Pruned, Pruning, values_of  # noqa: E402


def run(folder, values, status="finished"):
    """A run that was validated every two steps."""
    folder.mkdir(parents=True)
    rows = [f"{2 * k + 1},{k},{value}" for k, value in enumerate(values)]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,val/loss", *rows]) + "\n")
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    (folder / "job.json").write_text("{}")


def trainer(step, loss):
    strategy = SimpleNamespace(broadcast=lambda value: value)
    return SimpleNamespace(
        callback_metrics={"val/loss": loss}, global_step=step, sanity_checking=False,
        state=SimpleNamespace(fn="fit"), is_global_zero=True, strategy=strategy,
    )  # fmt: skip


def pruning(folder, mode="min"):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    return Pruning(folder / "mine", pruner, "val/loss", mode)


def test_values_are_counted_by_optimizer_steps(tmp_path):
    run(tmp_path / "a", [3.0, "nan", 1.0])
    assert values_of(tmp_path / "a", "val/loss") == {2: 3.0, 6: 1.0}


@pytest.mark.parametrize(("mode", "worse", "better"), [("min", 2.6, 2.4), ("max", 2.4, 2.6)])
def test_worse_than_the_median_at_this_step_is_pruned(tmp_path, mode, worse, better):
    run(tmp_path / "a", [2.0, 1.0])
    run(tmp_path / "b", [3.0, 0.1])
    run(tmp_path / "other", [9.0, 9.0], status="failed")
    pruning(tmp_path, mode).on_validation_end(trainer(2, better), None)
    with pytest.raises(Pruned, match="step 2 with val/loss"):
        pruning(tmp_path, mode).on_validation_end(trainer(2, worse), None)


def test_the_best_value_so_far_counts(tmp_path):
    for name in "ab":
        run(tmp_path / name, [2.0, 1.5])
    watched = pruning(tmp_path)
    watched.on_validation_end(trainer(2, 1.0), None)
    watched.on_validation_end(trainer(4, 9.0), None)


def test_few_finished_jobs_prune_nothing(tmp_path):
    run(tmp_path / "a", [1.0])
    pruning(tmp_path).on_validation_end(trainer(2, 99.0), None)


def test_runs_of_no_sweep_are_nothing_to_compare_with(tmp_path):
    for name in "ab":
        run(tmp_path / name, [2.0, 1.0])
        (tmp_path / name / "job.json").unlink()
    pruning(tmp_path).on_validation_end(trainer(2, 99.0), None)

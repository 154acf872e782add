"""Studies: rows composed as if typed, drawn from one noise, kept, tabled."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lab.config.arguments import compose
from diffusion_lab.config.words import Typed, combinations, into_rows
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluate import evaluate
from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.train import train

TINY = [
    "experiment=quickstart", "budget=smoke", "trainer=cpu", "logger=none", "schedule=linear",
    "schedule.steps=30", "parameterization=eps", "sampler=ddpm", "denoiser.base_channels=8",
    "denoiser.heads=2", "data.batch_size=8", "data.eval_batch_size=16",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.precision=32-true",
    "callbacks.samples=null", "callbacks.record.report=false",
]  # fmt: skip
FILES = {"table.md", "table.csv", "study.json", "figure.png", "samples.png"}


@pytest.fixture(autouse=True)
def quick(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(features, "recipe_for", lambda n: Recipe(steps=40, batch_size=32))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "run"
    words = [*TINY, "trainer.max_epochs=3", "callbacks.checkpoints.keep_every_n_epochs=1"]
    train(compose("train", [*words, f"run_dir={folder}"]))
    return folder


COMMON = [
    "num_samples=20", "device=cpu", "batch_size=8", "paths.data_dir=none",
    "second_classifier=false",
]  # fmt: skip


def study(name, *words, typed=()):
    return evaluate(compose("evaluate", [f"study={name}", *COMMON, *words]), typed)


def steps(run, out, *words, typed=()):
    """The study of steps on a model that has 30 of them: 7 in place of 50."""
    fewer = "study.rows.overrides={DDIM 50 steps:['sampler=ddim','sampler.steps=7']}"
    return study("steps", f"ckpt={run}", f"out={out}", fewer, *words, typed=typed)


def test_steps_counts_calls_and_draws_from_one_noise(run, tmp_path, capsys):
    content = steps(run, tmp_path, "guidance.scale=1", typed=["guidance.scale=1"])
    rows = {row["row"]: row for row in content["table"]}
    calls = {name: row["network_calls"] for name, row in rows.items()}
    assert calls == {"DDPM all steps": 30, "DDIM 50 steps": 7, "DDIM 20 steps": 20}
    shown = capsys.readouterr().out
    assert f"{20 * (30 + 7 + 20):,} network calls" in shown and "DDIM 20 steps" in shown
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"rows"}
    assert (tmp_path / "table.md").read_text().splitlines()[2] in shown
    for row in rows.values():
        assert 0 <= row["agreement"] <= 1 and row["fd"] > 1 and row["remaining_variance"] > 0
        assert row["speedup"] == rows["DDPM all steps"]["seconds"] / row["seconds"]
    drawn = {r["row"]: np.load(r["file"].replace(".json", ".npz"))["samples"]
             for r in content["rows"]}  # fmt: skip
    words = [f"ckpt={run}", "device=cpu", "sampler=ddim", "sampler.steps=7", "guidance.scale=1"]
    from diffusion_lab.sample import sample

    alone = sample(compose("sample", [*words, f"out={tmp_path / 'x.npz'}", "num_samples=20"]))
    np.testing.assert_allclose(drawn["DDIM 50 steps"], np.load(alone)["samples"], atol=1e-4)


def test_guidance_counts_twice(run, tmp_path):
    content = steps(run, tmp_path, typed=["guidance.scale=2"])
    assert [row["network_calls"] for row in content["table"]] == [60, 14, 40]


def test_kept_rows_are_not_drawn_again(run, tmp_path, monkeypatch):
    from diffusion_lab.evaluation import measuring

    first = steps(run, tmp_path)

    def refuse(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(measuring, "measure", refuse)
    assert steps(run, tmp_path) == first
    with pytest.raises(AssertionError, match="drawn again"):
        steps(run, tmp_path, "seed=1")
    record = sorted((tmp_path / "rows").glob("*.json"))[0]
    record.write_text(record.read_text()[:-9])  # torn
    with pytest.raises(AssertionError, match="drawn again"):
        steps(run, tmp_path)


def test_a_row_depends_on_the_checkpoints_content(run, tmp_path, monkeypatch):
    from diffusion_lab.evaluation.request import request_of

    copy = tmp_path / "moved.ckpt"
    shutil.copy(run / "checkpoints" / "last.ckpt", copy)
    requests = [request_of("a", path, ["device=cpu"], ["sampler.steps=3"])
             for path in (run / "checkpoints" / "last.ckpt", copy,
                          run / "checkpoints" / "step_000002.ckpt")]  # fmt: skip
    last, moved, early = (request.key({}) for request in requests)
    assert last == moved != early
    assert requests[1].sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert requests[0].key({"processor": "another"}) != last, "seconds are those of a machine"


def test_training_has_a_row_for_each_kept_checkpoint(run):
    content = study("training", f"ckpt={run}", "study.rows.overrides=['sampler=ddim',"
                    "'sampler.steps=3']")  # fmt: skip
    assert [row["step"] for row in content["table"]] == [2, 4, 6]
    assert [row["row"] for row in content["table"]] == ["step 2", "step 4", "step 6"]
    folder = run / "studies" / "training"
    assert {path.name for path in folder.iterdir()} == FILES
    with (folder / "table.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]
    assert Image.open(folder / "samples.png").width == 20 * 58 + 2
    fewer = study("training", f"ckpt={run}", "study.rows.most=2",
                  "study.rows.overrides=['sampler=ddim','sampler.steps=3']")  # fmt: skip
    assert [row["step"] for row in fewer["table"]] == [2, 6]


def test_ema_compares_the_two_weights(run, tmp_path):
    words = ["study.rows.overrides={averaged weights:['sampler=ddim','sampler.steps=3']}"]
    words += [f"ckpt={run}", f"out={tmp_path}"]
    with pytest.raises(ConfigError, match=r"raw weights.*sampler\.steps=50 .*at most 30"):
        study("ema", *words)
    words[0] = words[0][:-1] + ",raw weights:['weights=raw','sampler=ddim','sampler.steps=3']}"
    averaged, raw = study("ema", *words)["rows"]
    assert (averaged["settings"]["weights"], raw["settings"]["weights"]) == ("ema", "raw")
    assert averaged["figures"]["fd"] != raw["figures"]["fd"]


def test_noise_shows_the_variance_that_is_left(run, tmp_path):
    fewer = "study.rows.overrides={DDIM 100 steps:['sampler=ddim','sampler.steps=10']}"
    rows = study("noise", f"ckpt={run}", f"out={tmp_path}", fewer)["rows"]
    scales = [row["settings"]["sampler"].get("noise_scale") for row in rows]
    assert scales == [1.0, 0, None]
    assert rows[1]["figures"]["pairwise_distance"] < rows[0]["figures"]["pairwise_distance"]


def test_schedule_compares_two_runs(run, tmp_path):
    words = ["study.rows.overrides=['sampler=ddim','sampler.steps=3']"]
    paths = [f"study.runs.{name}.path={run}" for name in ("cosine", "linear")]
    content = study("schedule", *words, *paths, f"paths.output_dir={tmp_path}")
    assert [row["row"] for row in content["table"]] == ["cosine", "linear"]
    assert (tmp_path / "studies" / "schedule" / "table.md").is_file()
    with pytest.raises(ConfigError, match=r"study\.runs\.cosine\.path=RUN"):
        study("schedule", f"ckpt={run}")


def test_what_cannot_run_is_refused(run, tmp_path):
    for words, message in [
        (["study=stepz"], r"stepz.*no such choice.*steps"),
        (["study=steps", "study.runz=3"], "study.runs"),
        (["study=steps", f"ckpt={run}", "num_samples=9"], "at least 10"),
        (["study=steps", f"ckpt={run}", "label=12"], "label=12"),
        (["study=steps", f"ckpt={run}"], r"row 'DDIM 50 steps': sampler\.steps=50"),
        (["study=steps", f"ckpt={run}", "study.figure.y=[fad]"], "'fad' is unknown"),
        (["study=training", f"ckpt={run}", "study.rows.most=1"], r"study\.rows\.most=1"),
        (["study=steps", "study.runs.model.train=abc"], r"train=abc must be a list"),
        (["study=steps", "study.training=['optimizer.lr=-1']"], r"study\.runs\.model: optimizer"),
        (["study=training", "study.rows.overrides=['sampler=ddmi']"], r"study\.rows.*ddim"),
    ]:
        with pytest.raises(ConfigError, match=f"(?s){message}"):
            evaluate(compose("evaluate", [*words, f"paths.output_dir={tmp_path}"]))
    assert not list(tmp_path.iterdir()), "nothing is trained for a study that cannot run"


def test_a_run_that_lacks_what_a_study_looks_at_is_refused(tmp_path):
    words = ["callbacks.ema=null", "schedule=rectified_flow", "parameterization=velocity",
             "schedule.steps=null"]  # fmt: skip
    train(compose("train", [*TINY, *words, f"run_dir={tmp_path / 'run'}"]))
    for name, message in [
        ("steps", "continuous time.*schedule=linear schedule.steps=300"),
        ("noise", "continuous time"),
        ("ema", r"no averaged weights.*callbacks\.ema"),
        ("training", r"no step_\*\.ckpt.*callbacks\.checkpoints\.keep_every_n_epochs=1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            study(name, f"ckpt={tmp_path / 'run'}")


def test_what_a_study_needs_is_trained_once_and_resumed_when_broken(tmp_path, capfd):
    tiny = ",".join(f"'{word}'" for word in TINY[1:])
    words = [
        f"paths.output_dir={tmp_path}", f"study.training=[{tiny}]",
        "study.runs.model.train=['experiment=quickstart',"
        "'callbacks.checkpoints.keep_every_n_epochs=1']",
        "study.rows.overrides=['sampler=ddim','sampler.steps=2']",
    ]  # fmt: skip

    def said():
        study("training", *words)
        return capfd.readouterr().out

    assert "Done: 2 steps" in said()
    (folder,) = (tmp_path / "studies" / "runs").iterdir()
    assert folder.name.startswith("quickstart")
    assert (folder / "studies" / "training" / "table.md").is_file()
    again = said()
    assert "finished before" in again and "1 of them measured before" in again
    (folder / "summary.json").write_text(json.dumps({"status": "interrupted"}))
    assert "Going on from step 2" in said()
    for left in ("summary.json", "checkpoints"):
        path = folder / left
        path.unlink() if path.is_file() else shutil.rmtree(path)
    assert "Done: 2 steps" in said(), "a run that broke before its first checkpoint starts anew"


def test_points_are_measured_by_their_distance(tmp_path, monkeypatch, capsys):
    words = [w for w in TINY if not w.startswith("denoiser.")]
    words += ["data=moons", "denoiser=mlp", "guidance=none", "data.validation_size=50",
              "data.test_size=400", "data.train_size=400"]  # fmt: skip
    train(compose("train", [*words, f"run_dir={tmp_path / 'run'}"]))
    content = steps(tmp_path / "run", tmp_path / "out", "num_samples=100")
    assert all(row["sw_ratio"] > 1 for row in content["table"])
    assert "SW ratio" in (tmp_path / "out" / "table.md").read_text()
    assert "agreement" not in (tmp_path / "out" / "table.md").read_text()
    capsys.readouterr()
    words = [f"ckpt={tmp_path / 'run'}", "num_samples=100", "device=cpu", "sampler.steps=5"]
    figures = evaluate(compose("evaluate", words))
    assert figures["network_calls"] == 5 and "SW ratio" in capsys.readouterr().out
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["sw_ratio"] == figures["sw_ratio"]
    assert (tmp_path / "run" / "metrics_density.png").is_file()


def test_calls_are_those_that_the_network_gets(run):
    from diffusion_lab.evaluation.measuring import counting
    from diffusion_lab.evaluation.request import EvaluationRequest

    for words, expected in [
        (["sampler=heun", "sampler.steps=4", "guidance.scale=1"], 7),
        (["sampler=ddim", "sampler.steps=4", "guidance.scale=3"], 8),
        (["sampler=ddim", "sampler.steps=4", "guidance.scale=3", "label=null"], 4),
    ]:
        cfg = compose("evaluate", [f"ckpt={run}", "device=cpu", *words])
        assert EvaluationRequest(cfg).network_calls() == expected
    net, seen = torch.nn.Linear(2, 2), []
    with counting(net, seen.append) as calls:
        net(torch.zeros(3, 2))
    net(torch.zeros(3, 2))
    assert calls == seen == [3]


@pytest.mark.parametrize("name", ["steps", "schedule", "training", "ema", "noise"])
def test_the_trainings_of_a_study_are_sound(name):
    from diffusion_lab.config.building import instantiate
    from diffusion_lab.config.checking import check
    from diffusion_lab.evaluation.request import plain
    from diffusion_lab.studies.trainings import training_of

    cfg = compose("evaluate", [f"study={name}"])
    made = instantiate(plain(cfg.study))
    assert made.name == name
    words = {run: [*node["train"], *made.training] for run, node in made.runs.items()}
    trainings = [training_of(run, words[run], cfg) for run in made.runs]
    assert len({training.folder for training in trainings}) == len(trainings)
    for training in trainings:
        assert training.errors() == []
        assert training.folder.name.startswith("seed_00")
        shorter = training_of(training.name, [*words[training.name], "budget=smoke"], cfg)
        assert shorter.folder != training.folder, "another training, another folder"
    if name == "ema":
        assert compose("train", [*trainings[0].words, "budget=full"]).callbacks.ema is not None
    for row in made.rows(dict.fromkeys(made.runs)):
        assert "ddpm" in row.overrides[0] or check(compose("evaluate", row.overrides)) == []


def frontier(run, out, *words, typed=()):
    overrides = into_rows(Typed([], ["study=frontier", *words]))
    return evaluate(compose("evaluate", [*COMMON, f"ckpt={run}", f"out={out}", *overrides]), typed)


def test_a_frontier_multiplies_typed_lists_out_and_stars_what_nothing_beats(run, tmp_path):
    words = ["sampler=ddim,heun", "sampler.steps=2,3", "guidance.scale=1,2"]
    content = frontier(run, tmp_path, *words)
    rows = {row["row"]: row for row in content["table"]}
    assert len(rows) == 8 and "heun steps=3 scale=2" in rows
    assert rows["ddim steps=3 scale=1"]["network_calls"] == 3
    assert rows["heun steps=3 scale=2"]["network_calls"] == 10
    assert rows["heun steps=2 scale=2"]["curve"] == rows["heun steps=3 scale=2"]["curve"]
    best = min(rows.values(), key=lambda row: (row["fd"], row["network_calls"]))
    assert best["front"]
    for row in rows.values():
        beats = [
            other
            for other in rows.values()
            if other["network_calls"] <= row["network_calls"]
            and other["fd"] <= row["fd"]
            and (other["network_calls"], other["fd"]) != (row["network_calls"], row["fd"])
        ]
        assert row["front"] == (not beats)
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == FILES
    assert " * " in (tmp_path / "table.md").read_text()


def test_typed_values_replace_the_lists_of_the_study(run, tmp_path):
    content = frontier(run, tmp_path, "sampler=ddim", "sampler.steps=2,4", typed=["sampler=ddim"])
    assert [row["network_calls"] for row in content["table"]] == [4.0, 8.0]


def test_a_frontier_is_typed_with_or_without_the_flag_of_sweeps():
    typed = Typed(["-m"], ["study=frontier", "ckpt=run", "sampler.steps=range(10,31,10)"])
    words = into_rows(typed)
    assert typed.flags == [] and "sampler.steps=range(10,31,10)" not in words
    (over,) = [word for word in words if word.startswith("study.rows.over=")]
    lists = json.loads(over.partition("=")[2])
    assert lists[1:] == ["sampler.steps=range(10,31,10)"] and lists[0].startswith("sampler=euler,")
    assert [words[1] for words in combinations(lists)][:3] == [
        f"sampler.steps={n}" for n in (10, 20, 30)
    ]
    assert into_rows(Typed(["-m"], ["study=steps", "seed=1,2"])) == ["study=steps", "seed=1,2"]


def test_a_comparison_needs_a_difference(run, tmp_path):
    with pytest.raises(ConfigError, match=r"study\.rows\.ckpt"):
        study("compare", f"ckpt={run}", f"out={tmp_path}")


def test_a_comparison_is_paired(run, tmp_path, capsys):
    content = study(
        "compare", f"ckpt={run}", f"out={tmp_path}", "sampler=ddim", "sampler.steps=3",
        "guidance.scale=1", "study.rows.overrides=['weights=raw']",
        typed=["sampler=ddim", "sampler.steps=3", "guidance.scale=1"],
    )  # fmt: skip
    differences = content["differences"]["B"]
    a, b = content["table"]
    for name in ("agreement", "fd"):
        found = differences[name]
        assert found["value"] == pytest.approx(b[name] - a[name])
        assert found["low"] <= found["value"] <= found["high"]
    assert "95 % interval" in capsys.readouterr().out

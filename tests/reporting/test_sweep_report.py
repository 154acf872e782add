"""The page of a sweep: tables, effects, links, and that names of jobs stay text."""

import csv
import json
import shutil

import pytest
from page_tags import HOSTILE, Tags

from diffusion_lab.reporting.charts import effects
from diffusion_lab.reporting.html import write_report
from diffusion_lab.runs.sweep_records import read_sweep, short

HEADER = ["job", "status", "optimizer.lr", "sampler", "seed", "val/agreement", "val/loss"]
ROWS = [
    ["a", "finished", "1e-4", "ddim", "0", "0.9", "0.30"],
    ["b", "finished", "1e-3", "ddim", "0", "0.8", "0.10"],
    ["c", "finished", "1e-2", "euler", "0", "0.7", "0.20"],
    ["d", "failed", "1e-2", "ddim", "0", "", ""],
]


def write_csv(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def sweep(run_folder):
    folder = run_folder.parent / "sweep"
    for name in "abc":
        shutil.copytree(run_folder, folder / name)
        (folder / name / "report.html").write_text("")
    seconds = [["60"], ["70"], ["80"], [""]]
    errors = [[""], [""], [""], ["RuntimeError: <b>not finite</b>"]]
    rows = [r + s + e for r, s, e in zip(ROWS, seconds, errors, strict=True)]
    write_csv(folder / "sweep.csv", [*HEADER, "seconds", "error"], *rows)
    about = {"parameters": ["optimizer.lr", "sampler", "seed"], "metric": "val/loss", "mode": "min"}
    (folder / "sweep.json").write_text(json.dumps(about))
    write_csv(
        folder / "leaderboard.csv",
        ["optimizer.lr", "sampler", "runs", "val/loss", "val/loss_low", "val/loss_high"],
        ["1e-3", "ddim", "2", "0.1", "0.05", "0.15"],
        ["1e-2", "euler", "1", "0.2", "", ""],
    )
    return folder


def test_the_best_setting_the_leaderboard_and_failures_are_shown(sweep):
    tags = Tags(write_report(sweep).read_text())
    text = " ".join(" ".join(tags.text).split())
    assert "4 jobs: 3 finished, 1 failed · compared by val/loss, smaller is better" in text
    assert "best setting ★ optimizer.lr 1e-3 sampler ddim val/loss 0.1 (0.05 to 0.15)" in text
    assert "★ 1e-3 ddim 2 0.1 (0.05 to 0.15) 1e-2 euler 1 0.2" in text
    assert "d failed: RuntimeError: <b>not finite</b>" in text
    assert not tags.of("b") or all("class" in a for a in tags.of("b"))


def test_grids_come_with_the_best_first_and_jobs_are_linked(sweep, tmp_path):
    tags = Tags(write_report(sweep).read_text())
    assert [a["alt"] for a in tags.of("img") if "grid" in a["alt"]] == [
        "grid of samples, lr=1e-3 sampler=ddim seed=0",
        "grid of samples, lr=1e-2 sampler=euler seed=0",
        "grid of samples, lr=1e-4 sampler=ddim seed=0",
    ]
    links = [a["href"] for a in tags.of("a") if not a["href"].startswith("#")]
    assert links == [f"./{name}/report.html" for name in "bca"] * 2
    tags = Tags(write_report(sweep, tmp_path / "elsewhere" / "p.html").read_text())
    assert "./../sweep/b/report.html" in [a["href"] for a in tags.of("a")]


def test_effects_show_every_parameter_that_varies_for_up_to_three_metrics(sweep):
    read = read_sweep(sweep)
    assert read.shown == ["val/loss", "val/agreement", "seconds"]
    rate, sampler = effects(read, "val/loss")
    assert (rate.title, sampler.title) == ("optimizer.lr", "sampler")
    xs = sorted({dot.x for line in rate.lines for dot in line.dots})
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1]), "decades are evenly spaced"
    assert [*rate.across.ticks().values()] == ["1e-4", "1e-3", "1e-2"]
    *jobs, means = sampler.lines
    best = jobs[0]
    assert (best.name, best.colour) == ("lr=1e-3 sampler=ddim seed=0", "hue0")
    assert [dot[2:] for dot in best.dots] == [("ddim", "0.1")]
    ddim = [line.dots[0].y for line in jobs if line.dots[0].at == "ddim"]
    assert len(ddim) == 2 and means.dots[0].y == pytest.approx(sum(ddim) / 2)


def test_parallel_coordinates_are_drawn_where_several_jobs_have_values(sweep):
    def shown():
        return [
            a for a in Tags(write_report(sweep).read_text()).of("img") if "parallel" in a["alt"]
        ]

    (picture,) = shown()
    assert picture["alt"].endswith("val/loss") and int(picture["width"]) > 300
    write_csv(
        sweep / "sweep.csv",
        HEADER,
        *([*row[:3], f"${k}{{$", *row[4:]] for k, row in enumerate(ROWS)),
    )
    assert shown(), "no formulas"
    write_csv(sweep / "sweep.csv", HEADER, ROWS[0], ROWS[3])
    assert not shown()


def test_the_mode_of_a_sweep_says_which_end_is_best(sweep):
    about = {"parameters": ["optimizer.lr"], "metric": "val/agreement", "mode": "max"}
    (sweep / "sweep.json").write_text(json.dumps(about))
    assert [job.name for job in read_sweep(sweep).ranked()] == ["a", "b", "c"]
    assert [job.name for job in read_sweep(sweep).ranked("val/loss")] == ["b", "c", "a"]


def test_older_sweeps_have_a_table_only(run_folder):
    folder = run_folder.parent / "sweep"
    (folder / "job").mkdir(parents=True)
    shutil.copytree(run_folder / "samples", folder / "job" / "samples")
    (folder / "job" / "samples" / "generated.png").write_bytes(b"no grid")
    (folder / "sweep.csv").write_text("run,optimizer.lr,val/loss\njob,0.001,0.2\n<b>x</b>,0.002\n")
    tags = Tags(write_report(folder, out=folder / "page.html").read_text())
    assert len(tags.of("img")) == 1
    assert not tags.of("b")
    assert read_sweep(folder).parameters == ("optimizer.lr",)
    (folder / "sweep.csv").write_text("")
    assert "0 jobs" in write_report(folder).read_text()


def test_hostile_names_stay_text_and_name_no_folder_outside(sweep):
    for name in "abc":
        shutil.rmtree(sweep / name)
    (sweep / HOSTILE[5] / "samples").mkdir(parents=True)
    (sweep / HOSTILE[5] / "report.html").write_text("")
    outside = ["../run", "/etc", ".", ""]
    header = ["job", "status", *HOSTILE[:3], "val/loss", "error"]
    rows = [[name, name, *HOSTILE[:3], "0.1", name] for name in [*HOSTILE, *outside]]
    write_csv(sweep / "sweep.csv", header, *rows)
    write_csv(sweep / "leaderboard.csv", [*HOSTILE[:3], "val/loss"], [*HOSTILE[3:], "0.1"])
    (sweep / "sweep.json").write_text(json.dumps({"parameters": HOSTILE, "metric": HOSTILE[0]}))
    page = write_report(sweep).read_text()
    tags = Tags(page)
    assert len(tags.of("script")) == 1
    assert not any(k.startswith("on") for _, a in tags.found for k in a)
    links = [a["href"] for a in tags.of("a") if not a["href"].startswith("#")]
    assert set(links) == {"./javascript%3Aalert%281%29/report.html"}
    assert "{{7*7}}" in " ".join(tags.text)


def test_long_values_are_shortened():
    assert [short(v, 14) for v in ("0.00012345678", "1e-4", "a" * 20)] == [
        "0.0001235",
        "1e-4",
        "a" * 13 + "…",
    ]

"""Scores on the report page: intervals, confusion, studies."""

import json
import shutil

import pytest
from page_tags import HOSTILE, Tags

from diffusion_lab.reporting.html import write_report
from diffusion_lab.reporting.html_tables import paired_differences, study_table
from diffusion_lab.reporting.score_rows import STRIP, per_class, score_groups

SCORES = {
    "num_samples": 1000,
    "agreement": 0.993,
    "agreement_low": 0.9856,
    "agreement_high": 0.9966,
    "agreement_real": 0.996,
    "fd": 0.8817,
    "fd_low": 0.7144,
    "fd_high": 1.0491,
    "fd_real": 0.3109,
    "recall": None,
    "vendi": 10.0,
    "new_metric": 1.5,
    "new_metric_low": 1.0,
    "new_metric_high": 2.0,
    "per_class": [1.0, 0.5, None],
    "per_class_low": [0.9, 0.4, None],
    "per_class_high": [1.0, 0.6, None],
}


def test_scores_are_grouped_with_interval_and_that_of_real_data():
    groups = dict(score_groups(SCORES))
    assert [*groups] == ["Classes", "Distance to the training data", "Variety", "Others"]
    (agreement,) = groups["Classes"]
    assert (agreement.value, agreement.interval, agreement.real) == (
        "99.30%",
        "98.56% to 99.66%",
        "99.60%",
    )
    (fd,) = groups["Distance to the training data"]
    low, value, high, real = fd.strip
    assert (real, high) == STRIP and real < low < value < high
    assert groups["Variety"][0].interval == "" and groups["Variety"][0].strip is None
    assert groups["Others"][0].title == "new_metric"


def test_classes_come_with_the_worst_first():
    rows = [[cell.text for cell in row] for row in per_class(SCORES)]
    assert rows == [["1", "50.0%", "40.0% to 60.0%"], ["0", "100.0%", "90.0% to 100.0%"]]


def test_a_study_is_a_table_with_stars_sorted_by_values():
    table = [
        {"row": "euler", "step": 9, "fd": 1.036, "fd_low": 0.8, "fd_high": 1.2, "front": False},
        {"row": "heun", "step": 9, "fd": 0.869, "front": True},
    ]
    header, rows = study_table(table)
    assert header == ["setting", "front", "FD-CNN"]
    assert [[cell.text for cell in row] for row in rows] == [
        ["euler", "", "1.036 (0.800 to 1.200)"],
        ["heun", "★", "0.869"],
    ]
    assert float(rows[0][2].key) == 1.036


def test_a_paired_difference_is_one_if_its_interval_leaves_out_zero():
    ends = {"value": -0.2, "low": -0.3, "high": -0.1}
    found = paired_differences({"other": {"fd": ends, "recall": ends | {"high": 0.1}, "kd": {}}})
    assert found == [
        (
            "other",
            [
                ("FD-CNN", "-0.200", "-0.300 to -0.100", True),
                ("recall", "-0.200", "-0.300 to +0.100", False),
            ],
        )
    ]
    assert paired_differences(None) == []


def test_the_page_finds_the_evaluation_and_the_studies_of_a_run(run_folder):
    assert "diffusion_lab.evaluate ckpt=RUN" in write_report(run_folder).read_text()
    picture = run_folder / "samples" / "epoch_001.png"
    study = run_folder / "studies" / "frontier"
    study.mkdir(parents=True)
    row = {"row": HOSTILE[0], "fd": 1.0, "front": True}
    content = {"study": "frontier", "claim": HOSTILE[1], "table": [row, 3]}
    (study / "study.json").write_text(json.dumps(content))
    (run_folder / "metrics.json").write_text(json.dumps(SCORES | {"class_names": HOSTILE}))
    likelihood = {"unit": "bits/dim", "mean": 3.7, "low": 3.5, "high": 3.9, "num_images": 6}
    (run_folder / "likelihood.json").write_text(json.dumps(likelihood))
    for target in (run_folder / "metrics_nearest.png", study / "figure.png", study / "samples.png"):
        shutil.copy(picture, target)
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    shown = [a["alt"] for a in tags.of("img")][3:]
    assert len(shown) == 3 and shown[0].startswith("samples nearest")
    assert shown[1:] == ["frontier, figure", "frontier, samples"]
    text = " ".join(" ".join(tags.text).split())
    assert "98.56% to 99.66%" in text and "3.5000 to 3.9000" in text and HOSTILE[1] in text
    assert len(tags.of("script")) == 1
    assert "diffusion_lab.evaluate ckpt=RUN" not in page


@pytest.mark.parametrize("content", ["[]", '{"agreement": "high"}', '{"confusion": [["a"]]}', "{"])
def test_odd_metrics_make_no_error(run_folder, content):
    (run_folder / "metrics.json").write_text(content)
    assert "Not scored yet" in write_report(run_folder).read_text()

"""The report page: what it shows, what it forgives, and that run content stays text."""

import base64
import hashlib
import json
import re
import shutil

import pytest
import torch
from page_tags import HOSTILE, Tags, write_pages

from diffusion_lab.figures.grids import save_grid
from diffusion_lab.reporting.html import write_report
from diffusion_lab.reporting.inline_images import MOST_GRIDS
from diffusion_lab.reporting.run_facts import commands, duration, environment
from diffusion_lab.reporting.run_page import MOST_OF_A_FIGURE
from diffusion_lab.runs.records import read_run, show


def test_a_run_shows_grids_curves_summary_config_and_commands(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    page = path.read_text()
    tags = Tags(page)
    text = " ".join(tags.text)
    assert len(tags.of("img")) == 3
    assert [a["max"] for a in tags.of("input")] == ["2"]
    curves = {a["data-name"]: a for a in tags.of("g") if "data-name" in a}
    assert len(curves["train/loss"]["data-at"].split()) == 60
    assert (curves["val/loss"]["data-at"], curves["val/loss"]["data-values"]) == ("59", "0.21")
    for expected in ("epoch 3", "812.35", "torch", "schedule.steps", "val/loss"):
        assert expected in text
    assert "python -m diffusion_lab.train experiment=cfg_guidance schedule.steps=300" in text
    assert "python -m diffusion_lab.sample ckpt=" in text


def test_the_page_fetches_nothing_and_its_policy_names_its_own_script_and_style(run_folder):
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    assert all(a["src"].startswith("data:image/png;base64,") for a in tags.of("img"))
    assert all(a["href"].startswith("data:") for a in tags.of("link"))
    assert not re.search(r"https?://", page)
    assert not any("style" in a or any(k.startswith("on") for k in a) for _, a in tags.found)
    policy = tags.of("meta")[1]["content"]
    assert policy.startswith("default-src 'none'")
    for tag in ("script", "style"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_content_stays_text(run_folder):
    everything = "\n".join(HOSTILE)
    (run_folder / "config.yaml").write_text(everything)
    (run_folder / "overrides.txt").write_text("\n".join(f"name={text}" for text in HOSTILE))
    (run_folder / "summary.json").write_text(
        json.dumps({"status": HOSTILE[0], HOSTILE[1]: HOSTILE, "data": {"fallback": HOSTILE[2]}})
    )
    (run_folder / "metrics.csv").write_text(f'step,"{HOSTILE[2]}"\n0,1\n')
    hostile = run_folder / "<img src=x onerror=alert(1)>.png"
    shutil.copy(run_folder / "samples" / "epoch_001.png", hostile)
    write_pages(
        run_folder,
        {"name": HOSTILE[0], "caption": HOSTILE[1], "files": [hostile.name]},
        {"name": HOSTILE[2], "error": HOSTILE[0], "files": HOSTILE},
    )
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    assert len(tags.of("script")) == 1
    assert len(tags.of("img")) == 4
    assert not any(k.startswith("on") for _, a in tags.found for k in a)
    assert "49" not in re.sub(r"<script>.*?</script>|base64,[^\"]*", "", page, flags=re.S).split()
    assert "{{7*7}}" in " ".join(tags.text)


def test_a_killed_run_is_reported_with_remarks(run_folder):
    (run_folder / "summary.json").write_text('{"status": "runn')
    (run_folder / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.0\n1,0,abc\n,0,2\n2,0")
    run = read_run(run_folder)
    assert run.metrics["train/loss"][0] == (0.0, 1.0)
    assert any("summary.json" in remark for remark in run.remarks)
    assert "not valid JSON" in write_report(run_folder).read_text()


def test_an_interrupted_run_and_substituted_data_are_said_at_the_top(run_folder):
    message = "MNIST was not found: trained on the embedded digits"
    content = {"status": "interrupted", "data": {"fallback": message}}
    (run_folder / "summary.json").write_text(json.dumps(content))
    page = write_report(run_folder).read_text()
    warnings = re.findall(r'class="warning">(.*?)</p>', page)
    assert warnings == [message, "This run is interrupted, not finished."]


@pytest.mark.parametrize("kept", ["config.yaml", "summary.json", "metrics.csv", "samples"])
def test_any_single_part_is_enough(run_folder, kept):
    for part in list(run_folder.iterdir()):
        if part.name != kept:
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert "<h1>run</h1>" in write_report(run_folder).read_text()


def test_a_wrong_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no config\.yaml"):
        write_report(tmp_path)


def test_many_epochs_are_thinned_with_first_and_last_kept(run_folder):
    first = run_folder / "samples" / "epoch_001.png"
    for epoch in range(4, 201):
        shutil.copy(first, run_folder / "samples" / f"epoch_{epoch:03d}.png")
    tags = Tags(write_report(run_folder).read_text())
    captions = [a["alt"] for a in tags.of("img")]
    assert len(captions) == MOST_GRIDS
    assert captions[0].endswith("epoch 1")
    assert captions[-1].endswith("epoch 200")


def test_the_slider_takes_grids_of_training_only_in_the_order_of_their_numbers(run_folder):
    samples = run_folder / "samples"
    first = samples / "epoch_001.png"
    for name in ("epoch_1000", "epoch_999", "step_001000", "generated", "epoch_x", "epoch_2_b"):
        shutil.copy(first, samples / f"{name}.png")
    (samples / "epoch_7.png.part").write_bytes(b"")
    tags = Tags(write_report(run_folder).read_text())
    captions = [a["alt"].removeprefix("grid of samples, ") for a in tags.of("img")]
    assert captions == ["epoch 1", "epoch 2", "epoch 3", "epoch 999", "epoch 1000", "step 1000"]


def test_pages_are_shown_with_captions_and_failures_are_said(run_folder):
    for name in ("digit_7_grid.png", *(f"rows/row_{k:02d}.png" for k in range(40))):
        save_grid(run_folder / name, torch.zeros(4, 1, 8, 8))
    rows = [f"rows/row_{k:02d}.png" for k in range(39, -1, -1)]
    write_pages(
        run_folder,
        {"name": "digit_7", "caption": "100 samples", "files": ["digit_7_grid.png"]},
        {"name": "rows", "files": rows},
        {"name": "broken", "files": [], "error": "RuntimeError: no ink"},
        {"name": "link", "files": ["checkpoints/model_latest.pth"]},
        {"name": "gone", "files": ["gone.png"]},
    )
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    shown = [a["alt"] for a in tags.of("img") if "grid of" not in a["alt"]]
    assert shown[0] == "digit_7_grid.png" and len(shown) == 1 + MOST_OF_A_FIGURE
    assert shown[1] == "rows/row_39.png" and shown[-1] == "rows/row_00.png"
    text = " ".join(" ".join(tags.text).split())
    assert "digit 7 · 100 samples · digit_7_grid.png" in text
    assert "Figure broken could not be made: RuntimeError: no ink" in text
    assert "gone" not in text and "model_latest" not in text


def test_the_moments_of_a_denoising_are_a_film(run_folder):
    names = [f"samples/denoising/step_{k:04d}.png" for k in (9, 6, 3, 0)]
    for name in names:
        save_grid(run_folder / name, torch.zeros(2, 1, 8, 8))
    write_pages(run_folder, {"name": "denoising", "caption": "10 samples", "files": names})
    tags = Tags(write_report(run_folder).read_text())
    assert [a["max"] for a in tags.of("input")] == ["2", "3"]
    frames = [a for a in tags.of("img") if a["alt"].startswith("denoising")]
    assert [a["title"] for a in frames] == names
    assert frames[0]["alt"] == "denoising, frame 1 of 4"
    assert int(frames[0]["width"]) > 8


def test_grids_of_raw_weights_are_a_film_of_their_own(run_folder):
    for epoch in (1, 2):
        save_grid(
            run_folder / "samples" / "raw" / f"epoch_{epoch:03d}.png", torch.zeros(2, 1, 8, 8)
        )
    tags = Tags(write_report(run_folder).read_text())
    assert [a["max"] for a in tags.of("input")] == ["2", "1"]
    assert [a["title"] for a in tags.of("img")][3:] == [
        "samples/raw/epoch_001.png",
        "samples/raw/epoch_002.png",
    ]


def test_what_differs_from_the_default_is_said_where_it_is_known(run_folder):
    said = "differs from"
    assert said not in write_report(run_folder).read_text()
    (run_folder / "differs.json").write_text("[]")
    assert "nothing differs from it" in write_report(run_folder).read_text()
    rows = [["sampler", "euler", "ddim"], ["denoiser.attention", None, [7, 14]], ["torn"]]
    (run_folder / "differs.json").write_text(json.dumps(rows))
    text = " ".join(" ".join(Tags(write_report(run_folder).read_text()).text).split())
    assert "sampler euler ddim denoiser.attention – 7, 14" in text


def test_commands_bring_back_code_and_data(run_folder):
    commit = "86f091e7a8df4cd4415e3a753e1e3290ef4c97f8"
    (run_folder / "summary.json").write_text(json.dumps({"git": f"{commit}+changes"}))
    (run_folder / "config.yaml").write_text("seed: 0\npaths:\n  data_dir: /some/data\n  x: 1\n")
    found = {c.what: c for c in commands(read_run(run_folder))}
    assert found["The same code"].line == f"git checkout {commit}"
    assert "not committed" in found["The same code"].note
    assert found["Train it again"].line.endswith("schedule.steps=300 paths.data_dir=/some/data")
    assert "resume=" in found["Resume it"].line
    (run_folder / "summary.json").write_text(json.dumps({"git": "$(rm -r x)"}))
    (run_folder / "overrides.txt").write_text("paths.data_dir=/typed\nname=$(rm)\n")
    found = {c.what: c for c in commands(read_run(run_folder))}
    assert "The same code" not in found
    again = found["Train it again"].line
    assert again == "python -m diffusion_lab.train paths.data_dir=/typed 'name=$(rm)'"


def test_the_environment_is_grouped(run_folder):
    summary = {
        "seconds": 367.2,
        "started": "2026-11-21T21:57:54+00:00",
        "git": "abc",
        "precision": "bf16-mixed",
        "processes": 2,
        "versions": {"torch": "2.15.0"},
        "hardware": {"device": "cpu"},
        "further": {"a": {"b": 1}},
    }
    groups = dict(environment(summary))
    assert groups["run"] == [
        ("time", "6 min 7 s (367.2 s)"),
        ("started", "2026-11-21 21:57:54 UTC"),
    ]
    assert groups["hardware"] == [("processes", "2"), ("device", "cpu")]
    assert ("git revision", "abc") in groups["software"] and ("torch", "2.15.0") in groups[
        "software"
    ]
    assert groups["further"] == [("a.b", "1")]
    assert [duration(s) for s in (48.2, 60, 7260)] == ["48.2 s", "1 min 0 s", "2 h 1 min"]


def test_pages_outside_of_the_run_are_not_read(run_folder):
    secret = run_folder.parent / "secret.png"
    save_grid(secret, torch.zeros(1, 1, 4, 4))
    (run_folder / "link.png").symlink_to(secret)
    (run_folder / "own.png").symlink_to("samples/epoch_001.png")
    names = ["../secret.png", str(secret), "link.png", "own.png"]
    write_pages(run_folder, {"name": "x", "files": names}, "no page", {"files": 3})
    shown = [a["alt"] for a in Tags(write_report(run_folder).read_text()).of("img")]
    assert shown[3:] == ["own.png"]


def test_large_pages_are_named_and_not_embedded(run_folder, monkeypatch):
    save_grid(run_folder / "small.png", torch.zeros(1, 1, 4, 4))
    noise = torch.rand(100, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_grid(run_folder / "large.png", noise)
    monkeypatch.setattr("diffusion_lab.reporting.run_page.MOST_PAGE_BYTES", 5_000)
    write_pages(run_folder, {"name": "a", "files": ["large.png", "small.png"]})
    tags = Tags(write_report(run_folder).read_text())
    assert [a["alt"] for a in tags.of("img")][3:] == ["small.png"]
    assert "too large to be shown here: large.png" in " ".join(tags.text)


def test_values_are_shown_as_people_write_them():
    assert [show(v) for v in (None, True, 0.123456789, [1, 2.5], "x", 7)] == [
        "–", "yes", "0.12346", "1, 2.5", "x", "7",
    ]  # fmt: skip

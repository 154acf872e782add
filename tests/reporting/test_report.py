"""The report page: what it shows, what it forgives, and that run content stays text."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch

from diffusion_lab.reporting.grids import save_grid
from diffusion_lab.reporting.records import read_run, show
from diffusion_lab.reporting.report import MOST_GRIDS, write_report

BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
    "--dump-dom",
]
HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "{{7*7}}",
    "'; alert(1); '",
]


class Tags(HTMLParser):
    """All tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def run_folder(tmp_path):
    """A folder such as a training run leaves."""
    folder = tmp_path / "run"
    for epoch in (1, 2, 3):
        images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(epoch)) * 2 - 1
        save_grid(folder / "samples" / f"epoch_{epoch:03d}.png", images)
    (folder / "config.yaml").write_text("seed: 0\nschedule:\n  steps: 300\n")
    (folder / "overrides.txt").write_text("experiment=cfg_guidance\nschedule.steps=300\n")
    summary = {
        "status": "finished",
        "steps": 60,
        "images_per_second": 812.345678,
        "metrics": {"val/loss": 0.21},
        "data": {"name": "mnist", "fallback": None},
        "versions": {"torch": "2.15.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [f"{k},0,{1 / (k + 1)}," for k in range(60)] + ["59,0,,0.21"]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,val/loss", *rows]) + "\n")
    return folder


def test_a_run_shows_grids_curves_summary_config_and_commands(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    page = path.read_text()
    tags = Tags(page)
    text = " ".join(tags.text)
    assert len(tags.of("img")) == 3
    assert [a["max"] for a in tags.of("input")] == ["2"]
    assert len(tags.of("circle")) == 61
    for expected in ("epoch 3", "812.35", "torch", "schedule.steps", "val/loss = 0.21 at step 59"):
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
    (run_folder / "samples" / "<img src=x onerror=alert(1)>.png").write_bytes(b"")
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    assert len(tags.of("script")) == 1
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


def test_a_sweep_shows_its_table_and_last_grids(run_folder):
    sweep = run_folder.parent / "sweep"
    (sweep / "job").mkdir(parents=True)
    shutil.copytree(run_folder / "samples", sweep / "job" / "samples")
    (sweep / "sweep.csv").write_text("run,optimizer.lr,val/loss\njob,0.001,0.2\n<b>x</b>,0.002\n")
    tags = Tags(write_report(sweep, out=sweep / "page.html").read_text())
    assert len(tags.of("img")) == 1
    assert len(tags.of("td")) == 6
    assert not tags.of("b")


def test_values_are_shown_as_people_write_them():
    assert [show(v) for v in (None, True, 0.123456789, [1, 2.5], "x", 7)] == [
        "–", "yes", "0.12346", "1, 2.5", "x", "7",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_slider_and_policy_work_in_a_browser(run_folder):
    path = write_report(run_folder)
    done = subprocess.run(
        ["chromium", *BROWSER, path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'class="scripted"' in done.stdout
    assert "CONSOLE" not in done.stderr

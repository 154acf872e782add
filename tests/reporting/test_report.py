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
from diffusion_lab.reporting.report import MOST_GRIDS, MOST_OF_A_PAGE, write_report

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


def write_pages(folder, *pages):
    (folder / "artefacts.json").write_text(json.dumps({"step": 60, "pages": pages}))


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
    for name in ("digit_7_grid.png", *(f"steps/step_{k:04d}.png" for k in range(0, 2000, 50))):
        save_grid(run_folder / name, torch.zeros(4, 1, 8, 8))
    steps = [f"steps/step_{k:04d}.png" for k in range(1950, -1, -50)]
    write_pages(
        run_folder,
        {"name": "digit_7", "caption": "100 samples", "files": ["digit_7_grid.png"]},
        {"name": "steps", "files": steps},
        {"name": "broken", "files": [], "error": "RuntimeError: no ink"},
        {"name": "link", "files": ["checkpoints/model_latest.pth"]},
        {"name": "gone", "files": ["gone.png"]},
    )
    page = write_report(run_folder).read_text()
    tags = Tags(page)
    shown = [a["alt"] for a in tags.of("img") if "grid of" not in a["alt"]]
    assert shown[0] == "digit_7_grid.png" and len(shown) == 1 + MOST_OF_A_PAGE
    assert shown[1] == "steps/step_1950.png" and shown[-1] == "steps/step_0000.png"
    text = " ".join(" ".join(tags.text).split())
    assert "digit 7 · 100 samples · digit_7_grid.png" in text
    assert "Page broken could not be made: RuntimeError: no ink" in text
    assert "gone" not in text and "model_latest" not in text


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
    monkeypatch.setattr("diffusion_lab.reporting.report.MOST_PAGE_BYTES", 5_000)
    write_pages(run_folder, {"name": "a", "files": ["large.png", "small.png"]})
    tags = Tags(write_report(run_folder).read_text())
    assert [a["alt"] for a in tags.of("img")][3:] == ["small.png"]
    assert "too large to be shown here: large.png" in " ".join(tags.text)


def test_a_sweep_shows_its_table_and_last_grids(run_folder):
    sweep = run_folder.parent / "sweep"
    (sweep / "job").mkdir(parents=True)
    shutil.copytree(run_folder / "samples", sweep / "job" / "samples")
    (sweep / "job" / "samples" / "generated.png").write_bytes(b"no grid")
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

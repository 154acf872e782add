"""``python -m diffusion_lab.report``."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from diffusion_lab.config.arguments import compose
from diffusion_lab.errors import ConfigError
from diffusion_lab.report import folder_of, report


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "a run, with=signs"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder


def test_a_run_is_named_by_its_folder_or_by_any_file_in_it(run_folder):
    assert folder_of(run_folder) == run_folder
    assert folder_of(run_folder / "config.yaml") == run_folder
    assert folder_of(run_folder / "checkpoints" / "last.ckpt") == run_folder
    with pytest.raises(ConfigError, match="does not exist"):
        folder_of(run_folder / "other")


def test_the_page_is_written_where_it_is_asked_for(run_folder, tmp_path, capsys):
    page = report(OmegaConf.create({"run": str(run_folder), "out": str(tmp_path / "p.html")}))
    assert page == tmp_path / "p.html"
    assert page.is_file()
    assert str(page) in capsys.readouterr().out


def test_a_missing_run_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="run= is missing"):
        report(compose("report"))
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        report(OmegaConf.create({"run": str(tmp_path), "out": None}))


def test_the_command_line_needs_no_torch_and_takes_odd_paths(run_folder):
    code = (
        "import sys; from diffusion_lab.report import main; main();"
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"run={run_folder}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (run_folder / "report.html").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_lab.report", "rum=x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "did you mean run?" in done.stderr
    assert "Traceback" not in done.stderr

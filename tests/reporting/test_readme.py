"""What the README says is true: its Python runs, its tables match conf/, its command is checked."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_two_commands_open_it():
    first, second = blocks("bash")[:2]
    assert first.startswith("pip install uv && uv run python -m diffusion_lab.train")
    assert second.strip() == "pip install uv && uv run pytest -n 2"


def test_the_python_by_hand_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in blocks("python") if "Trainer(" in block]
    assert len(re.split(r"\n\n", code)[-1].splitlines()) <= 10
    quick = code.replace("max_epochs=40", "max_epochs=1, limit_train_batches=1")
    quick = quick.replace("steps=20", "steps=2").replace("base_channels=48", "base_channels=16")
    assert quick.count("max_epochs=1, limit") == 1
    exec(compile(quick.replace("sample(100", "sample(10"), "README.md", "exec"), {})
    assert (tmp_path / "digits.png").stat().st_size > 100


@pytest.mark.parametrize("line", re.findall(r"^\| (`.*)\|$", README, re.M))
def test_choices_in_the_table_exist(line):
    name, _, choices = (cell.strip() for cell in [*line.split("|"), "", ""][:3])
    group = name.split(",")[0].strip("`").split("@")[0]
    folder = ROOT / "conf" / group
    if not folder.is_dir() or "list=" in choices:
        return
    named = set(re.findall(r"`([a-z_0-9]+)`", choices)) - {"auto" if group == "budget" else ""}
    assert named == {path.stem for path in folder.glob("*.yaml")}


def test_ci_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    (found,) = re.findall(r"^tests=\$\((sed .*)\)$", script, re.M)
    done = subprocess.run(["bash", "-c", found], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "pip install uv && uv run pytest -n 2"

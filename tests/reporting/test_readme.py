"""What the READMEs say is true: the Python runs, tables match conf/, links lead to something."""

import re
import subprocess
from urllib.parse import urlsplit

import pytest
from commands import READMES, ROOT, blocks

README = READMES["README.md"]


def test_the_two_commands_open_it():
    first, second = blocks("bash", README)[:2]
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


def test_the_first_page_is_short():
    assert len(README.splitlines()) < 250


@pytest.mark.parametrize("name", READMES)
def test_links_and_pictures_are_there(name):
    """Files are there, headings too, and every README can be reached from the first page."""
    text = READMES[name]
    for link in re.findall(r"\]\(([^)]+)\)", text):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        path = (ROOT / name).parent / parts.path if parts.path else ROOT / name
        assert path.exists(), link
        if parts.fragment:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert parts.fragment in {heading.lower().replace(" ", "-") for heading in headings}
    assert name == "README.md" or f"({name})" in README, "a README nobody finds"

"""The notebooks run, cell by cell, with the smallest budget."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_is_stored_without_outputs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    names = {"display": shown.append}
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    for cell in cells:
        code = "".join(cell["source"]).replace('BUDGET = "cpu"', 'BUDGET = "smoke"')
        exec(compile(code, path.name, "exec"), names)
    asked = sum("".join(cell["source"]).count("display(") for cell in cells)
    assert len(shown) >= asked

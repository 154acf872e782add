"""The arrows between the rooms go one way: imports are parsed, nothing is run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffusion_lab"
ALLOWED = {
    "diffusion": {"diffusion"},
    "sampling": {"sampling", "diffusion"},
    "denoisers": {"denoisers"},
    "data": {"data"},
    "metrics": {"metrics", "data"},
    "reporting": {"reporting"},
    "training": {"training", "sampling", "diffusion", "reporting", "config"},
}
GROUND = {"errors", "ranges"}
LIBRARIES = {
    "hydra": {"config", "training/checkpoint", "train", "sample", "evaluate", "report", "bench"},
    "omegaconf": {
        "config",
        "training/checkpoint",
        "train",
        "sample",
        "evaluate",
        "report",
        "bench",
    },
    "lightning": {"data", "training", "train", "sample", "evaluate", "report", "bench"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    where = path.relative_to(PACKAGE).with_suffix("").as_posix()
    room = where.split("/")[0]
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "diffusion_lab" and len(parts) > 1 and room in ALLOWED:
            assert parts[1] in ALLOWED[room] | GROUND, f"{where} imports {module}"
        if parts[0] in LIBRARIES:
            allowed = LIBRARIES[parts[0]]
            assert where in allowed or room in allowed, f"{where} imports {module}"


def test_diffusion_and_sampling_need_torch_only():
    standard = {
        "__future__", "abc", "collections", "hashlib", "itertools", "math", "typing",
    }  # fmt: skip
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] in ("diffusion", "sampling"):
            roots = {module.split(".")[0] for module in imports(path)}
            if path.stem == "couplings":  # scipy solves the assignment of optimal transport
                roots -= {"scipy"}
            assert roots <= standard | {"torch", "diffusion_lab"}, (path, roots)

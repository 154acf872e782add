"""The arrows between the rooms go one way: imports are parsed, lazy ones too; nothing is run."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "diffusion_lab"
GROUND = {"errors", "files", "random", "pixels", "spread", "ranges", "status_line"}
MATHS = {"diffusion", "sampling", "denoisers"}
ALLOWED = {
    "errors": set(),
    "files": set(),
    "random": set(),
    "pixels": set(),
    "spread": set(),
    "ranges": set(),
    "status_line": set(),
    "diffusion": set(),
    "denoisers": set(),
    "sampling": {"diffusion"},
    "data": set(),
    "metrics": {"data"},
    "checkpoints": set(),
    "config": {"checkpoints", "diffusion"},
    "generate": {"sampling", "diffusion"},
    "runs": {"config", "checkpoints"},
    "figures": {"runs", "metrics", "generate", "sampling", "diffusion"},
    "reporting": {"figures", "runs", "metrics"},
    "training": {
        *("generate", "reporting", "figures", "runs", "metrics", "checkpoints", "sampling"),
        "diffusion",
    },
    "loading": {"training", "generate", "config", "checkpoints", "sampling", "diffusion"},
    "evaluation": {
        *("loading", "reporting", "figures", "runs", "config", "checkpoints", "generate"),
        *("metrics", "data", "sampling", "diffusion"),
    },
    "studies": {"evaluation", "metrics", "reporting", "figures", "runs", "config", "checkpoints"},
}
"""Room -> the rooms that it may import, beside itself and the ground floor."""
ENTRIES = {"train", "sample", "evaluate", "likelihood", "report", "bench"}
"""Commands: they may import every room, and no room imports one of them."""
LIBRARIES = {
    "hydra": {"config", "runs", *ENTRIES},
    "omegaconf": {"config", "runs", "loading", *ENTRIES},
    "lightning": {"data", "training", "loading", *ENTRIES},
    "wandb": {"training"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def dotted(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def rooms_of(path):
    """Rooms that a file imports."""
    parts = (module.split(".") for module in imports(path))
    named = {part[1] for part in parts if part[0] == "diffusion_lab" and len(part) > 1}
    return named & {entry.stem for entry in PACKAGE.iterdir()}


def test_every_room_has_a_row():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms == set(ALLOWED) | ENTRIES


def test_the_rows_have_no_circle():
    left = dict(ALLOWED)
    while left:
        done = [room for room, needs in left.items() if not needs & left.keys()]
        assert done, f"a circle among {sorted(left)}"
        for room in done:
            del left[room]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room in ALLOWED:
        ground = {"errors"} if room in GROUND else GROUND
        stray = rooms_of(path) - ALLOWED[room] - ground - {room}
        assert not stray, f"{path.relative_to(PACKAGE)} imports {stray}"
    for module in imports(path):
        allowed = LIBRARIES.get(module.split(".")[0])
        assert allowed is None or room in allowed, f"{path.relative_to(PACKAGE)} imports {module}"


def test_no_file_is_in_a_circle():
    """Not even of lazy imports: whoever needs one has two floors in one file."""
    modules = {dotted(path): path for path in FILES}
    needs = {
        name: {m for m in imports(path) if m in modules and m != name}
        for name, path in modules.items()
        if name != "diffusion_lab"
    }
    while needs:
        done = [name for name, below in needs.items() if not below & needs.keys()]
        assert done, f"a circle among {sorted(needs)}"
        for name in done:
            del needs[name]


def test_diffusion_and_sampling_need_torch_only():
    standard = {
        "__future__", "abc", "collections", "contextlib", "dataclasses", "itertools", "math",
        "typing",
    }  # fmt: skip
    for path in FILES:
        if room_of(path) in ("diffusion", "sampling"):
            roots = {module.split(".")[0] for module in imports(path)}
            if path.stem == "couplings":  # scipy solves the assignment of optimal transport
                roots -= {"scipy"}
            assert roots <= standard | {"torch", "annotated_types", "diffusion_lab"}, (path, roots)


def test_loading_a_model_needs_neither_hydra_nor_lightning():
    """Measured in a process of its own, on a checkpoint with guidance and averaged weights."""
    file = Path(__file__).parent / "net" / "format_1.ckpt"
    code = (
        "import sys, diffusion_lab\n"
        f"model = diffusion_lab.load({str(file)!r})\n"
        "assert model.sample(2, label=1).shape == (2, 1, 28, 28)\n"
        "heavy = ('hydra', 'omegaconf', 'lightning', 'torchvision')\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & set(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def names_of(node):
    """What a statement defines."""
    goals = node.targets if isinstance(node, ast.Assign) else [node]
    return next((n for g in goals if (n := getattr(g, "name", getattr(g, "id", "")))), "")


def test_names_stand_once():
    """Of files in all rooms, and of what stands at the top of a file, but `main` of a command."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert len({path.name for path in files}) == len(files)
    defined = (ast.parse(path.read_text()).body for path in files)
    names = Counter(name for body in defined for node in body if (name := names_of(node)))
    twice = {name for name, count in names.items() if count > 1}
    assert len(twice) <= 5 and "main" in twice, twice

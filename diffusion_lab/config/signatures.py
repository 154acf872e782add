"""What a constructor takes, read from its source, not by importing it.

Importing lightning or torchvision takes seconds; parsing one file takes milliseconds. So a
mistyped argument of the Trainer is found before anything heavy is loaded.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})
"""Keys of a node that are Hydra's, not the constructor's."""

_WITHOUT_ARGUMENTS = frozenset({"ABC", "object", "Protocol", "Generic"})
"""Bases that add nothing to a constructor."""


@dataclass(frozen=True)
class Signature:
    """Arguments of a class or function.

    Attributes:
        annotations: Annotation of each argument that can be named, None where it has none.
        required: Those without a default.
        open: Whether it takes any further keyword.
    """

    annotations: dict[str, ast.expr | None] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    open: bool = False

    def takes(self, name: str) -> bool:
        """Whether `name` may be a key of the node."""
        return self.open or name in self.annotations or name in HYDRA_KEYS


@lru_cache(maxsize=256)
def signature(target: str) -> Signature | None:
    """The signature behind a dotted name, or None where its source is not found."""
    module, _, name = target.rpartition(".")
    found = _definition(module, name) if module else None
    if found is None:
        return None
    definition, module = found
    if isinstance(definition, ast.FunctionDef):
        return _of_function(definition, drop_first=False)
    return _of_class(definition, module)


def constant(target: str, name: str) -> Any:
    """The value of a class attribute, its own or inherited; None where it has no plain one.

    Knows literals, and `tuple(...)` of them.
    """
    module, _, name_of_class = target.rpartition(".")
    found = _definition(module, name_of_class) if module else None
    if found is None or not isinstance(found[0], ast.ClassDef):
        return None
    definition, module = found[0], found[1]
    for entry in definition.body:
        if isinstance(entry, ast.FunctionDef) and entry.name == name:
            return None
        goals = entry.targets if isinstance(entry, ast.Assign) else [getattr(entry, "target", None)]
        value = getattr(entry, "value", None)
        if value is not None and any(isinstance(g, ast.Name) and g.id == name for g in goals):
            return _evaluated(value)
    bases = [f"{module}.{_base_name(base)}" for base in definition.bases]
    values = (constant(base, name) for base in bases)
    return next((value for value in values if value is not None), None)


def _evaluated(expression: ast.expr) -> Any:
    """A literal, or a tuple made of a text or a range; None for anything else."""
    code = compile(ast.Expression(expression), "constant", "eval")
    try:
        return eval(code, {"__builtins__": {"tuple": tuple, "range": range}})
    except (NameError, AttributeError, TypeError):
        return None


def names_in(module: str) -> list[str]:
    """Classes and functions defined in a module, for suggestions; empty if it is not found."""
    tree = _module_tree(module)
    if tree is None:
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]


def _of_function(node: ast.FunctionDef, *, drop_first: bool) -> Signature:
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    optional = {entry.arg for entry in positional[len(positional) - len(spec.defaults) :]}
    optional |= {
        entry.arg
        for entry, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
        if default is not None
    }
    named = [*positional[1 if drop_first else 0 :], *spec.kwonlyargs]
    return Signature(
        annotations={entry.arg: entry.annotation for entry in named},
        required=tuple(entry.arg for entry in named if entry.arg not in optional),
        open=spec.kwarg is not None,
    )


def _of_class(node: ast.ClassDef, module: str) -> Signature:
    for entry in node.body:
        if isinstance(entry, ast.FunctionDef) and entry.name == "__init__":
            own = _of_function(entry, drop_first=True)
            return _with_parents(own, node, module) if own.open and node.bases else own
    if _is_dataclass(node):
        fields = _fields(node, module)
        required = tuple(name for name, entry in fields.items() if not _has_default(entry.value))
        return Signature({name: entry.annotation for name, entry in fields.items()}, required)
    return _parents(node, module)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef, module: str) -> dict[str, ast.AnnAssign]:
    """The fields of a dataclass by name, inherited ones first."""
    fields: dict[str, ast.AnnAssign] = {}
    for base in reversed(node.bases):
        located = _definition(module, _base_name(base))
        if located and isinstance(located[0], ast.ClassDef):
            fields |= _fields(located[0], located[1])
    for entry in node.body if _is_dataclass(node) else ():
        if isinstance(entry, ast.AnnAssign) and "ClassVar" not in ast.dump(entry.annotation):
            fields[getattr(entry.target, "id", "")] = entry
    return fields


def _has_default(value: ast.expr | None) -> bool:
    """Whether the value of a field is its default; that of `field(kw_only=False)` is none."""
    if isinstance(value, ast.Call) and _base_name(value.func) == "field":
        return any((entry.arg or "").startswith("default") for entry in value.keywords)
    return value is not None


def _with_parents(own: Signature, node: ast.ClassDef, module: str) -> Signature:
    """`**kwargs` goes to the parent: take its arguments too."""
    parent = _parents(node, module)
    return Signature({**parent.annotations, **own.annotations}, own.required, parent.open)


def _parents(node: ast.ClassDef, module: str) -> Signature:
    """The constructor that a class inherits; one that takes anything where none is found."""
    bases = [_base_name(base.value if isinstance(base, ast.Subscript) else base)
             for base in node.bases]  # fmt: skip
    bases = [name for name in bases if name not in _WITHOUT_ARGUMENTS]
    for name in bases:
        located = _definition(module, name)
        if located and isinstance(located[0], ast.ClassDef):
            return _of_class(located[0], located[1])
    return Signature(open=bool(bases))


def _definition(
    module: str, name: str, depth: int = 0
) -> tuple[ast.ClassDef | ast.FunctionDef, str] | None:
    """The definition of `module.name` and the module it stands in, through re-exports."""
    tree = _module_tree(module)
    if tree is None or depth > 6:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node, module
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    origin = _absolute(node, module)
                    return _definition(origin, alias.name, depth + 1)
    return None


def _absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    path = _source(module)
    package = module.split(".") if path and path.name == "__init__.py" else module.split(".")[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@lru_cache(maxsize=256)
def _module_tree(module: str) -> ast.Module | None:
    path = _source(module)
    return ast.parse(path.read_text(encoding="utf-8")) if path else None


def _source(module: str) -> Path | None:
    """The file of a module, found without importing its parents."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin)
    for part in rest:
        if path.name != "__init__.py":
            return None
        folder = path.parent
        path = folder / part / "__init__.py"
        path = path if path.is_file() else folder / f"{part}.py"
        if not path.is_file():
            return None
    return path if path.suffix == ".py" else None


def _base_name(node: ast.expr) -> str:
    """The name that a base or a called function stands under, of a dotted one its last part."""
    return getattr(node, "id", getattr(node, "attr", ""))

"""The list of mistakes does not rot: each can be planted, and no function is without one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutations import MUTATIONS

PACKAGE = Path(__file__).resolve().parents[2] / "diffusion_lab"
FILES = sorted(
    str(path.relative_to(PACKAGE))
    for folder in ("diffusion", "sampling")
    for path in (PACKAGE / folder).rglob("*.py")
)

EXEMPT = {
    "diffusion/schedules/base.py: checked_steps": "argument check",
    "diffusion/schedules/base.py: require_steps": "argument check",
    "diffusion/weights.py: ConstantWeight.on_x0": "only raises",
    "diffusion/times.py: TimeLaw.importance": "the default of a hook, None",
    "diffusion/times.py: TimeLaw.state_dict": "the default of a hook, nothing",
    "sampling/guidance.py: checked_scale": "argument check",
    "sampling/guidance.py: refuse_other_schedule": "argument check",
    "sampling/noise.py: SampleNoise._check": "argument check",
    "sampling/sampler.py: Sampler.prepare": "the default of a hook, nothing",
    "sampling/sampler.py: SelfConditioned.__getattr__": "hands attributes on",
}


def is_trivial(statement: ast.stmt) -> bool:
    """A docstring, a refusal of an argument, or an argument kept as it is or by default."""
    if isinstance(statement, ast.Expr):
        value = statement.value
        plain = isinstance(value, ast.Constant)
        return plain or ast.unparse(value).startswith("super().__init__(")
    if isinstance(statement, ast.If):
        return all(isinstance(inner, ast.Raise) for inner in statement.body)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        computed = ast.BinOp | ast.BoolOp | ast.Compare | ast.Subscript
        return not any(isinstance(node, computed) for node in ast.walk(statement.value))
    return False


def has_logic(function: ast.FunctionDef) -> bool:
    """Whether a function does more than to be abstract, empty or a plain `__init__`."""
    if any(ast.unparse(decorator) == "abstractmethod" for decorator in function.decorator_list):
        return False
    if function.name == "__init__":
        return not all(is_trivial(statement) for statement in function.body)
    return not all(
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        for statement in function.body
    )


def functions(node: ast.AST, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions and methods with logic, but those inside of functions, by dotted name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions(child, (*names, child.name))
        elif isinstance(child, ast.FunctionDef) and has_logic(child):
            yield ".".join((*names, child.name)), child


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    return ast.dump(tree)


@pytest.mark.parametrize("file", sorted({mutation.file for mutation in MUTATIONS}))
def test_mistakes_can_be_planted(file: str) -> None:
    source = (PACKAGE / file).read_text()
    for mutation in MUTATIONS:
        if mutation.file == file:
            mutated = mutation.applied(source)
            assert without_docstrings(mutated) != without_docstrings(source), mutation.wrong


def test_list_is_ordered_and_without_doubles() -> None:
    files = [mutation.file for mutation in MUTATIONS]
    assert files == sorted(files)
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS)
    assert len({(m.file, m.wrong) for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("file", FILES)
def test_every_function_has_a_mistake(file: str) -> None:
    source = (PACKAGE / file).read_text()
    lines = {m.line(source) for m in MUTATIONS if m.file == file}
    for name, node in functions(ast.parse(source)):
        held = any(node.lineno <= line <= (node.end_lineno or 0) for line in lines)
        if f"{file}: {name}" in EXEMPT:
            assert not held, f"{name} holds a mistake: take it from the exempt"
        else:
            assert held, f"{name} holds no mistake: write one"


def test_exempt_functions_exist() -> None:
    known = {
        f"{file}: {name}"
        for file in FILES
        for name, _ in functions(ast.parse((PACKAGE / file).read_text()))
    }
    assert set(EXEMPT) <= known

"""The mistakes do not rot: each can be planted, no function is without one, and some are caught."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from lists import EQUIVALENT, WITHOUT
from mutations import Scope, made, mutants, sites, trees, units

RUN = Path(__file__).with_name("run.py")
MADE = {
    "a - b": {"a + b", "a"},
    "a * b": {"a / b", "a", "b"},
    "a**2": {"a * 2", "a"},
    "-a": {"a"},
    "a < b": {"a <= b", "a > b"},
    "a and b": {"a or b", "a", "b"},
    "a if c else b": {"b if c else a"},
    "0.5": {"1.0"},
    "1": {"2"},
    "s": {"t"},
    "level.alpha": {"level.sigma"},
    "v.sqrt()": {"v"},
    "torch.exp(a)": {"a"},
    "x.clamp(min=a)": {"x", "x.clamp(max=a)"},
    "eps_from(x, x0, t)": {"eps_from(x0, x, t)"},
    "combine((a, x), (b, y))": {"combine((b, y))", "combine((a, x))", "combine((b, x), (a, y))"},
    "x[1:]": {"x"},
}


def test_a_level_of_the_place_is_taken_for_the_next_one() -> None:
    scope = Scope({"here": 0, "s": 0, "x0": 0}, set(), False)
    for text, other in {"s": "here.t", "here.t": "s", "here.x": "x0"}.items():
        found = [new for _, new in made(ast.parse(text, mode="eval").body, scope)]
        assert [ast.unparse(new) for new in found if new is not None] == [other]


@pytest.mark.parametrize("text", MADE)
def test_operators_make_the_usual_slips(text: str) -> None:
    scope = Scope({"s": 0, "t": 0}, set(), False)
    found = [new for _, new in made(ast.parse(text, mode="eval").body, scope)]
    assert {ast.unparse(new) for new in found if new is not None} == MADE[text]


def without_docstrings(tree: ast.AST) -> str:
    plain = ast.parse(ast.unparse(tree))
    for node in ast.walk(plain):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    return ast.dump(plain)


@pytest.mark.parametrize("file", sorted(trees()))
def test_mistakes_can_be_planted(file: str) -> None:
    source = without_docstrings(trees()[file])
    for mutant in mutants():
        if mutant.file == file:
            compile(mutant.source, file, "exec")
            assert without_docstrings(ast.parse(mutant.source)) != source, mutant.key


def test_there_are_no_doubles() -> None:
    keys = Counter(mutant.key for mutant in mutants())
    assert max(keys.values()) == 1
    texts = Counter(mutant.source for mutant in mutants())
    assert sum(count - 1 for count in texts.values()) < 10


def test_every_function_has_a_mistake() -> None:
    held = {mutant.name for mutant in mutants()}
    assert {unit.name for unit in units()} == held | set(WITHOUT)
    assert not held & set(WITHOUT)


def test_exempt_functions_exist_and_have_such_sites() -> None:
    by_name = {unit.name: unit for unit in units()}
    assert set(WITHOUT) <= set(by_name)
    for name, operator, _, _ in EQUIVALENT:
        assert operator in {site[0].operator for site in sites(by_name[name])}, (name, operator)


def test_planted_mistakes_are_caught_by_tests_that_call_the_function() -> None:
    tests = ["--tests", "tests/numeric/test_algebra.py"]
    command = [sys.executable, str(RUN), "--jobs", "1", *tests, "--only"]
    found = subprocess.run([*command, "marginal [", "Clip._"], capture_output=True, text=True)
    assert "CAUGHT    diffusion/gaussian.py: marginal" in found.stdout, found
    assert "SURVIVED  sampling/constraints.py: Clip.__call__" in found.stdout
    assert found.returncode == 1
    assert subprocess.run([*command, "no such text"], capture_output=True).returncode == 2

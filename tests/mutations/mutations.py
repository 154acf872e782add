"""Single mistakes in the mathematics that the numeric tests must notice.

No mistake is tied to a line or a text. `units` finds every function with logic of the two packages
and of `random.py` (and every table of numbers of a class or a module) in the syntax tree; operators
turn one of its expressions or statements into what a slip would have made of it; `mutants` takes
for each unit a share of all these, at least one, spread over the operators and drawn by a hash of
the unit's own name and expressions, so that an edit changes the mistakes of the edited function
alone. `lists` has what no operator makes, and what is no mistake.
"""

import ast
import builtins
import copy
import hashlib
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lists import CONFUSED, EQUIVALENT, SPECIAL, WITHOUT

PACKAGE = Path(__file__).resolve().parents[2] / "diffusion_lab"
FOLDERS = ("diffusion", "sampling")
FILES = ("random.py",)
SHARE, MOST = 0.09, 7
"""Of a unit's possible mistakes: the share taken, and the largest number."""

Function = ast.FunctionDef | ast.Assign
Made = tuple[str, ast.AST | None]
"""Name of the operator, and what it puts in a node's place; None takes a statement out."""


class Unit(NamedTuple):
    """A function, or an assignment of numbers in a class or a module; `name` is unique."""

    file: str
    name: str
    node: Function


class Mutant(NamedTuple):
    """One mistake: `operator` made `after` of the `number`-th `before` in the unit `name`."""

    file: str
    name: str
    operator: str
    number: int
    before: str
    after: str
    source: str = ""

    @property
    def key(self) -> str:
        """All that tells it from others."""
        number = f" ({self.number})" if self.number else ""
        return f"{self.name} [{self.operator}] {self.before} -> {self.after or 'nothing'}{number}"


def words(text: str) -> set[str]:
    """The words of a text."""
    return set(text.split())


ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.Pow: ast.Mult,
}
COMPARISON = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
OTHER = {
    **{a: b for pair in ("mean sum", "min max", "any all", "cos sin", "round floor", "exp expm1",
                         "log1p log", "maximum minimum", "ones_like zeros_like", "clamp_min "
                         "clamp_max", "hypot atan2", "alpha sigma", "t_min t_max", "low high",
                         "atol rtol", "beta_min beta_max", "jump repeats", "sigma_min sigma_max")
       for one, two in [pair.split()] for a, b in ((one, two), (two, one))},
    "std": "mean", "append": "appendleft",
}  # fmt: skip
"""Attributes and what stands in their place."""
LEFT_OUT = words(
    "sqrt log exp abs square clamp clamp_min clamp_max detach flip cumsum round floor diff "
    "log1p expm1 cos sin sigmoid softplus log_softmax reversed sorted max min"
)
"""Calls of which the argument alone remains."""
SYMMETRIC = words(
    "combine min max maximum minimum hypot zip allclose isinstance getattr cat stack full_like "
    "full to clamp expand view range int round view_as _replace __init__ next "
    "check_same_schedule"
)
"""Calls whose arguments are not exchanged: in vain, or an error of types at once."""
SHAPING = words("flatten mean sum std norm chunk unbind log_softmax gather view flip")
"""Calls whose numbers are dimensions."""
LIKE = words("ones_like zeros_like full_like view_as expand_as to type_as normal")
"""Calls whose first argument lends its shape or kind alone."""
KINDS = {
    **dict.fromkeys(words("s t level middle below above clean here"), "level"),
    **dict.fromkeys(words("model schedule noise denoise denoised label null rule frame"), "other"),
}
"""Names that are no numbers: exchanged with each other alone."""
STEPS = {"step", "last", "start", "older", "p"}
"""Names that hold a `Step`, with its `x`, `x_t` and `x0`."""
TECHNICAL = {"dtype", "device", "generator", "strict", "dim", "retain_graph", "reduction"}


def last_name(node: ast.AST) -> str:
    """The last identifier of a name, an attribute or a call."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_number(node: ast.AST) -> bool:
    """Whether a node is a number, not a truth value."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def numbers(node: ast.Constant) -> Iterator[Made]:
    """The next integer; twice a number; for a tolerance, one that matters."""
    value = node.value
    if isinstance(value, int):
        yield "number", ast.Constant(value + 1)
    else:
        yield "number", ast.Constant(1.0 if not value else 0.1 if abs(value) < 1e-6 else 2 * value)


def arithmetic(node: ast.BinOp) -> Iterator[Made]:
    """Another operation; one operand alone."""
    left, op, right = node.left, type(node.op), node.right
    filled = "ones_like" in (last_name(left), last_name(right))  # 1, for the shape alone
    if isinstance(left, ast.List) or filled or op not in ARITHMETIC:
        return
    yield "arithmetic", ast.BinOp(left, ARITHMETIC[op](), right)
    yield "drop", left
    if op in (ast.Add, ast.Mult, ast.BitAnd):
        yield "drop", right


def calls(node: ast.Call, defaults: set[str]) -> Iterator[Made]:
    """Left out, given fewer arguments, or given them in another order."""
    name, args = last_name(node), node.args
    if name in LEFT_OUT:
        method = isinstance(node.func, ast.Attribute) and last_name(node.func.value) not in (
            "torch",
            "math",
            "functional",
        )
        if method or len(args) == 1:
            yield "drop call", node.func.value if method else args[0]
    for i, keyword in enumerate(node.keywords):
        other = {"min": "max", "max": "min"}.get(keyword.arg or "")
        if other:
            new = copy.copy(node)
            new.keywords = [ast.keyword(other, keyword.value)]
            yield "min for max", new
        elif keyword.arg not in TECHNICAL:
            new = copy.copy(node)
            new.keywords = node.keywords[:i] + node.keywords[i + 1 :]
            yield "drop argument", new
    if name in defaults and len(args) > 1 and not isinstance(args[-1], ast.Starred):
        new = copy.copy(node)
        new.args = args[:-1]
        yield "drop argument", new
    if name == "combine":
        yield from pairs(node)
    if name not in SYMMETRIC and not any(isinstance(a, ast.Starred) for a in args):
        for i in {0, len(args) - 2} if len(args) > 1 else ():
            if alike(args[i], args[i + 1]):
                new = copy.copy(node)
                new.args = [*args[:i], args[i + 1], args[i], *args[i + 2 :]]
                yield "exchange arguments", new


def alike(a: ast.expr, b: ast.expr) -> bool:
    """Whether two arguments can be taken for each other."""
    kinds = {KINDS.get(last_name(e), "condition" * isinstance(e, ast.Compare)) for e in (a, b)}
    return len(kinds) == 1 and ast.dump(a) != ast.dump(b)


def pairs(node: ast.Call) -> Iterator[Made]:
    """A sum of (c, x) without one of them, and with the coefficients of two exchanged."""
    args = node.args
    if len(args) < 2 or not all(isinstance(a, ast.Tuple) for a in args[:2]):
        return
    for i in range(len(args)):
        yield "drop term", ast.Call(node.func, args[:i] + args[i + 1 :], node.keywords)
    (c, x), (d, y) = args[0].elts, args[1].elts
    exchanged = [ast.Tuple([d, x], ast.Load()), ast.Tuple([c, y], ast.Load())]
    yield "exchange arguments", ast.Call(node.func, [*exchanged, *args[2:]], node.keywords)


def negated(test: ast.expr) -> ast.expr:
    """The opposite of a condition."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot):
        op = ast.IsNot() if isinstance(test.ops[0], ast.Is) else ast.Is()
        return ast.Compare(test.left, [op], test.comparators)
    return ast.UnaryOp(ast.Not(), test)


def is_refusal(node: ast.AST) -> bool:
    """Whether a statement only refuses an argument."""
    return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise) and not node.orelse


class Scope(NamedTuple):
    """What an operator must know of the function around a node."""

    names: dict[str, int]
    """Names that hold something, and the line from which on they do."""
    defaults: set[str]
    """Functions whose last argument may be left out."""
    constructor: bool

    def held(self, node: ast.AST, line: int) -> bool:
        """Whether a name holds something before a line."""
        return self.names.get(getattr(node, "id", ""), line) < line


def made(node: ast.AST, scope: Scope) -> Iterator[Made]:
    """All that operators make of one node."""
    if is_number(node):
        yield from numbers(node)
    elif isinstance(node, ast.BinOp):
        yield from arithmetic(node)
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)
        yield "drop statement", None
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare):
        ops = COMPARISON.get(type(node.ops[0]), ())
        tolerance = isinstance(getattr(node.comparators[0], "value", None), float)
        for op in ops[1:] if tolerance else ops:  # nothing equals a tolerance
            yield "comparison", ast.Compare(node.left, [op(), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BoolOp):
        other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield "and for or", ast.BoolOp(other, node.values)
        for i in range(len(node.values)):
            kept = node.values[:i] + node.values[i + 1 :]
            yield "drop", kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)
    elif isinstance(node, ast.IfExp):
        yield "condition", ast.IfExp(node.test, node.orelse, node.body)
    elif is_refusal(node):
        if not scope.constructor:
            yield "no refusal", None
    elif isinstance(node, ast.If):
        yield "condition", ast.If(negated(node.test), node.body, node.orelse)
    elif isinstance(node, ast.Call):
        yield from calls(node, scope.defaults)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for other in CONFUSED.get(node.id, ()):
            if scope.held(ast.Name(other), node.lineno):
                yield "name", ast.Name(other, ast.Load())
            elif "here" in scope.names and other in ("t", "x"):
                yield "name", ast.Attribute(ast.Name("here", ast.Load()), other, ast.Load())
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.YieldFrom):
        if last_name(node.value) != "__init__":
            yield "drop statement", None
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield "drop slice", node.value
    elif isinstance(node, ast.Tuple) and len(node.elts) > 1:
        yield from tuples(node)
    elif isinstance(node, ast.Assign) and scope.held(node.targets[0], node.lineno):
        yield "drop statement", None
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        base = last_name(node.value)
        if base in STEPS and node.attr in ("x", "x_t", "x0"):
            other = "x0" if node.attr == "x_t" else "x_t"
            yield "name", ast.Attribute(node.value, other, node.ctx)
        elif base in STEPS and node.attr == "t" and scope.held(ast.Name("t"), node.lineno):
            yield "name", ast.Name("t", ast.Load())
        elif node.attr in OTHER:
            yield "name", ast.Attribute(node.value, OTHER[node.attr], node.ctx)
        for other in CONFUSED.get(node.attr, ()) if base == "here" else ():
            if scope.held(ast.Name(other), node.lineno):
                yield "name", ast.Name(other, ast.Load())


def tuples(node: ast.Tuple) -> Iterator[Made]:
    """Names or results in another order."""
    plain = all(isinstance(e, ast.Name | ast.Starred) for e in node.elts)
    if (isinstance(node.ctx, ast.Store) and plain) or getattr(node, "returned", False):
        for i in {0, len(node.elts) - 2}:
            a, b = node.elts[i : i + 2]
            if ast.dump(a) != ast.dump(b) and not isinstance(a, ast.Starred):
                yield "order", ast.Tuple([*node.elts[:i], b, a, *node.elts[i + 2 :]], node.ctx)


SKIPPED = {"annotation", "returns", "decorator_list", "type_params", "bases", "type_comment"}


def places(node: ast.AST, outer: bool = True) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of each node that may hold a mistake, from the top down."""
    for field, value in ast.iter_fields(node):
        if field in SKIPPED or (isinstance(node, ast.arguments) and not outer):
            continue
        if isinstance(node, ast.keyword) and node.arg in ("dtype", "device"):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert):
                continue
            if isinstance(child, ast.JoinedStr | ast.operator | ast.cmpop | ast.expr_context):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(node, ast.Call) and field == "args":
                called = last_name(node)
                if called in SHAPING or (called in LIKE and i == 0):
                    continue
            if isinstance(child, ast.Return) and isinstance(child.value, ast.Tuple):
                child.value.returned = True
            yield node, field, i if isinstance(value, list) else None
            if not is_refusal(child):
                yield from places(child, outer and not isinstance(child, ast.FunctionDef))


def is_trivial(statement: ast.stmt) -> bool:
    """A docstring, a refusal of an argument, or an argument kept as it is or by default."""
    if isinstance(statement, ast.Expr):
        plain = isinstance(statement.value, ast.Constant)
        return plain or last_name(statement.value) == "__init__"
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        computed = ast.BinOp | ast.BoolOp | ast.Compare | ast.Subscript | ast.IfExp
        return not any(isinstance(node, computed) for node in ast.walk(statement.value))
    return is_refusal(statement) or isinstance(statement, ast.Pass)


def has_logic(function: ast.FunctionDef) -> bool:
    """Whether a function does more than to be abstract, empty or a plain `__init__`."""
    if any(ast.unparse(decorator) == "abstractmethod" for decorator in function.decorator_list):
        return False
    body = [s for s in function.body if not isinstance(s, ast.Expr | ast.Pass)] or [
        s
        for s in function.body
        if isinstance(s, ast.Expr) and not isinstance(s.value, ast.Constant)
    ]
    if function.name == "__init__":
        defaults = [*function.args.defaults, *function.args.kw_defaults]
        numeric = any(node is not None and published(node) for node in defaults)
        return numeric or not all(is_trivial(statement) for statement in body)
    return bool(body)


def published(default: ast.AST) -> bool:
    """Whether a default value is a number that says something: not 0, not 1."""
    inner = default.operand if isinstance(default, ast.UnaryOp) else default
    return is_number(inner) and inner.value not in (0, 1)


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax trees of the two packages, and of the files beside them, by file."""
    files = {path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")}
    files = sorted(files | {PACKAGE / file for file in FILES})
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in files}


def found(node: ast.AST, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Function]]:
    """Functions with logic, but those inside of functions, and tables of numbers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from found(child, (*names, child.name))
        elif isinstance(child, ast.FunctionDef) and has_logic(child):
            yield ".".join((*names, child.name)), child
        elif isinstance(child, ast.Assign) and any(map(is_number, ast.walk(child.value))):
            yield ".".join((*names, ast.unparse(child.targets[0]))), child


@cache
def units() -> list[Unit]:
    """All of them; one whose name another file has too bears that of its module."""
    every = [(file, *unit) for file, tree in trees().items() for unit in found(tree)]
    count = Counter(name for _, name, _ in every)
    return [
        Unit(file, f"{Path(file).stem}.{name}" if count[name] > 1 else name, node)
        for file, name, node in every
    ]


@cache
def with_defaults() -> set[str]:
    """Functions and classes whose last positional argument has a default value."""
    names = set()
    for node in (n for tree in trees().values() for n in ast.walk(tree)):
        functions = node.body if isinstance(node, ast.ClassDef) else [node]
        for f in functions:
            if isinstance(f, ast.FunctionDef) and f.args.defaults:
                names.add(node.name if f.name == "__init__" else f.name)
    return names


def scope_of(node: Function) -> Scope:
    """Names bound in a function."""
    names: dict[str, int] = {}
    for child in ast.walk(node):
        name, line = getattr(child, "arg", None), getattr(child, "lineno", 0)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            name = child.id
        if name and not isinstance(child, ast.keyword):
            names[name] = min(names.get(name, line), line)
    constructor = getattr(node, "name", "") == "__init__"
    return Scope(names, with_defaults() - set(dir(builtins)), constructor)


def replaced(unit: Unit, place: tuple[ast.AST, str, int | None], new: ast.AST | None) -> str:
    """The text of the unit's file with one node of it replaced."""
    parent, field, i = place
    new = ast.Pass() if new is None else new
    old, node = getattr(parent, field), unit.node
    setattr(parent, field, new if i is None else [*old[:i], new, *old[i + 1 :]])
    text = textwrap.indent(ast.unparse(node), " " * node.col_offset)
    setattr(parent, field, old)
    lines = (PACKAGE / unit.file).read_text().splitlines()
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return "\n".join([*lines[: first - 1], text, *lines[node.end_lineno :], ""])


@cache
def sites(unit: Unit) -> list[tuple[Mutant, tuple, ast.AST | None]]:
    """Every mistake that an operator makes in a unit, without those that are none."""
    scope, seen, result = scope_of(unit.node), Counter(), []
    for parent, field, i in places(unit.node):
        child = getattr(parent, field) if i is None else getattr(parent, field)[i]
        in_defaults = isinstance(parent, ast.arguments)
        if in_defaults and not published(child):
            continue
        for operator, new in made(child, scope):
            after = "" if new is None else ast.unparse(ast.fix_missing_locations(new))
            before = ast.unparse(child).split("\n")[0]
            operator = "default" if in_defaults else operator
            name = (unit.file, unit.name, operator)
            number = seen[(operator, before, after)]
            seen[(operator, before, after)] += 1
            mutant = Mutant(*name, number, before, after.split("\n")[0])
            if before != mutant.after or "\n" in after:
                result.append((mutant, (parent, field, i), new))
    return result or list(fallback(unit))


def fallback(unit: Unit) -> Iterator[tuple[Mutant, tuple, ast.AST]]:
    """Where no operator finds anything: None is returned, or a name for another."""
    for node in ast.walk(unit.node):
        if isinstance(node, ast.Return) and node.value is not None:
            before = ast.unparse(node.value)
            mutant = Mutant(unit.file, unit.name, "return", 0, before, "None")
            yield mutant, (node, "value", None), ast.Constant(None)


def reason(mutant: Mutant) -> str | None:
    """Why it is no mistake, or None."""
    for name, operator, part, why in EQUIVALENT:
        if (mutant.name, mutant.operator) == (name, operator) and part in mutant.key:
            return why
    return None


def rank(mutant: Mutant) -> str:
    """An order drawn by a hash of the mistake itself."""
    return hashlib.sha256(mutant.key.encode()).hexdigest()


def drawn(unit: Unit, all_of_them: bool) -> Iterator[Mutant]:
    """The unit's share, the operators in turn."""
    if unit.name in WITHOUT:
        return
    left = sorted((s for s in sites(unit) if reason(s[0]) is None), key=lambda s: rank(s[0]))
    count = len(left) if all_of_them else min(MOST, max(1, round(SHARE * len(left))))
    used: Counter[str] = Counter()
    for _ in range(min(count, len(left))):
        site = min(left, key=lambda s: used[s[0].operator])
        left.remove(site)
        used[site[0].operator] += 1
        mutant, place, new = site
        yield mutant._replace(source=replaced(unit, place, new))


def special() -> Iterator[Mutant]:
    """Those of the list `SPECIAL`.

    Raises:
        ValueError: the function is gone, or holds nothing of the kind.
    """
    by_name = {unit.name: unit for unit in units()}
    for name, operator, target, new, _ in SPECIAL:
        unit = by_name.get(name)
        hits = [] if unit is None else list(targets(unit.node, operator, target))
        if not hits:
            raise ValueError(f"{name}: nothing to {operator} at {target}")
        parent, field, i = hits[0]
        child = getattr(parent, field) if i is None else getattr(parent, field)[i]
        value = ast.parse(new, mode="eval").body
        source = replaced(unit, hits[0], value)
        yield Mutant(unit.file, name, operator, 0, f"{target} {ast.unparse(child)}", new, source)


def targets(node: Function, operator: str, target: str) -> Iterator[tuple]:
    """Where a special mistake goes: a value that is set or returned, an argument of a call."""
    for child in ast.walk(node):
        if operator == "set" and isinstance(child, ast.Assign):
            if target in ast.unparse(child.targets[0]).strip("()").split(", "):
                yield child, "value", None
        elif operator == "return" and isinstance(child, ast.Return):
            yield child, "value", None
        elif operator == "argument" and isinstance(child, ast.Call):
            called, position = target.split(":")
            if last_name(child) == called and len(child.args) > int(position):
                yield child, "args", int(position)


@cache
def mutants(all_of_them: bool = False) -> list[Mutant]:
    """Every mistake to be planted; with `all_of_them`, all that operators make."""
    every = [mutant for unit in units() for mutant in drawn(unit, all_of_them)]
    return [*every, *special()]


def only(wanted: Iterable[Mutant], texts: Iterable[str]) -> list[Mutant]:
    """Those with one of the texts in file or name."""
    return [m for m in wanted if any(t in f"diffusion_lab/{m.file} {m.key}" for t in texts)]

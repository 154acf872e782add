"""Ranges of arguments: stated once, in the annotation of a constructor's argument.

    @checked
    def __init__(self, decay: Annotated[float, Ge(0), Lt(1)] = 0.999, images: Count = 10) -> None:

`checked` enforces such annotations when the object is made. The configuration's checker reads the
same annotations out of the source and judges them by the same function (`mismatch`), so that it
need not import the class. Both read the annotation as text: a module that uses `checked` begins
with `from __future__ import annotations`.
"""

from __future__ import annotations

import ast
import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache, wraps
from inspect import signature
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

from annotated_types import Ge, Gt, Le

from diffusion_lab.errors import ArgumentError

Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
Share = Annotated[float, Ge(0), Le(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]

_ALIASES = {
    "Count": Count, "Natural": Natural, "Seed": Seed, "Share": Share, "Positive": Positive,
    "NonNegative": NonNegative,
}  # fmt: skip
"""Names of ranges that stand for themselves wherever an annotation uses them."""

_SCALARS: dict[str, tuple[type, str]] = {
    "int": (numbers.Integral, "an integer"),
    "float": (numbers.Real, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
}
_NEVER_TYPED = frozenset({"Tensor", "Module"})
"""Types that no value of a yaml file has."""
_YAML_TYPES = (type(None), bool, int, float, str, list, dict)
"""Types that values of a yaml file have."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Bounds(NamedTuple):
    """Constraints of a number; None where there is none."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: Any) -> bool:
        """Whether a number is finite and keeps them."""
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
        bounds = [f"{words[k]} {v}" for k, v in self._asdict().items() if v is not None]
        return " and ".join(bounds)


def checked(function: Function) -> Function:
    """Refuse arguments out of the range, or not of the choices, that their annotation states.

    Arguments whose annotation states neither are left alone. Of a class (a dataclass, say) it is
    the constructor that is checked.

    Raises:
        ArgumentError: When the function is called with such a value.
    """
    if isinstance(function, type):
        function.__init__ = checked(function.__init__)  # type: ignore[misc]
        return function

    @cache
    def ranged() -> dict[str, ast.expr]:
        texts = {name: text for name, text in function.__annotations__.items() if name != "return"}
        return {
            name: tree for name, text in texts.items() if _has_range(tree := annotation_tree(text))
        }

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = signature(function).bind_partial(*args, **kwargs).arguments
        for name, annotation in ranged().items():
            expected = mismatch(given[name], annotation) if name in given else None
            if expected:
                raise ArgumentError(name, given[name], f"must be {expected}")
        return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def annotation_tree(annotation: str) -> ast.expr:
    """An annotation as a tree."""
    return ast.parse(annotation, mode="eval").body


def _has_range(annotation: ast.expr) -> bool:
    names = {last_name(node) for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return bool(names & {"Annotated", "Literal", *_ALIASES})


def mismatch(value: Any, annotation: ast.expr | None) -> str | None:
    """What was expected, if a plain value does not fit an annotation; None if it fits.

    Knows int, float, bool, str, None, Literal, lists and tuples of these, unions, and numbers with
    a range (`Annotated` with Ge, Gt, Le and Lt, and the names above); any other annotation fits
    everything.
    """
    if annotation is None or (isinstance(value, dict) and "_target_" in value):
        return None
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return mismatch(value, annotation_tree(annotation.value))
    expected = [_expected(value, part) for part in alternatives(annotation)]
    if any(text is None for text in expected):
        return None
    options = [text for text in dict.fromkeys(expected) if text]
    return " or ".join(options).replace(" or null", ", or null")


def mismatches(values: Iterable[tuple[Any, ast.expr | str | None]]) -> list[str | None]:
    """`mismatch` of many (value, annotation or its text)."""
    return [
        mismatch(value, annotation_tree(known) if isinstance(known, str) else known)
        for value, known in values
    ]


def alternatives(annotation: ast.expr) -> list[ast.expr]:
    """The parts of a union, of `a | b`, Optional[a] or Union[a, b]."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return alternatives(annotation.left) + alternatives(annotation.right)
    if isinstance(annotation, ast.Subscript):
        name = last_name(annotation.value)
        parts = _members(annotation)
        if name == "Optional":
            return [*alternatives(parts[0]), ast.Constant(None)]
        if name == "Union":
            return [option for part in parts for option in alternatives(part)]
    return [annotation]


def bounds_of(annotation: ast.expr) -> tuple[str, Bounds] | None:
    """The scalar type and the range that one alternative states; None where it states none."""
    known = _ALIASES.get(last_name(annotation))
    if known is not None:
        kind, *constraints = get_args(known)
        return kind.__name__, Bounds(**{k: v for c in constraints for k, v in asdict(c).items()})
    if not isinstance(annotation, ast.Subscript) or last_name(annotation.value) != "Annotated":
        return None
    kind_node, *calls = _members(annotation)
    limits = {
        last_name(call.func).lower(): ast.literal_eval(call.args[0])
        for call in calls
        if isinstance(call, ast.Call) and last_name(call.func) in ("Ge", "Gt", "Le", "Lt")
    }
    return last_name(kind_node), Bounds(**limits)


def _expected(value: Any, annotation: ast.expr) -> str | None:
    """As `mismatch`, for one alternative."""
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return None if value is None else "null"
    stated = bounds_of(annotation)
    if stated is not None:
        name, bounds = stated
        fits = _is_scalar(value, name) and bounds.hold(value)
        return None if fits else f"{_SCALARS[name][1]} {bounds}"
    name = last_name(annotation)
    if name in _SCALARS:
        return None if _is_scalar(value, name) else _SCALARS[name][1]
    if isinstance(annotation, ast.Subscript):
        return _expected_container(value, annotation)
    return "" if name in _NEVER_TYPED and isinstance(value, _YAML_TYPES) else None


def _is_scalar(value: Any, name: str) -> bool:
    return isinstance(value, _SCALARS[name][0]) and (name == "bool" or not isinstance(value, bool))


def _expected_container(value: Any, annotation: ast.Subscript) -> str | None:
    name, parts = last_name(annotation.value), _members(annotation)
    if name == "Literal":
        allowed = [part.value for part in parts if isinstance(part, ast.Constant)]
        fits = any(value is entry or (value == entry and type(value) is type(entry))
                   for entry in allowed)  # fmt: skip
        return None if fits else "one of " + ", ".join(_typed(entry) for entry in allowed)
    if name in {"list", "List", "Sequence", "Iterable", "tuple", "Tuple"}:
        if not isinstance(value, list | tuple):
            return "a list"
        wrong = [text for entry in value if (text := mismatch(entry, parts[0]))]
        if wrong:
            return f"a list, each entry {wrong[0]}"
        open_end = isinstance(parts[-1], ast.Constant) and parts[-1].value is ...
        if name.lower() == "tuple" and not open_end and len(value) != len(parts):
            return f"a list of {len(parts)}"
    return None


def _typed(value: Any) -> str:
    """A value as it would be typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _members(annotation: ast.Subscript) -> list[ast.expr]:
    inner = annotation.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]


def last_name(node: ast.expr) -> str:
    """The name of a node, of a dotted one its last part; nothing of any other node."""
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")

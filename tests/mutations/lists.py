"""What the operators of `mutations` need to be told by hand."""

_GROUPS = (
    "s t", "alpha sigma", "x0 eps", "x0 x_t", "x x0", "state x", "small large", "low high",
    "c_t c_0", "c_t c_s", "tau_t tau_s", "first last", "mean std", "mean true_mean", "u c",
    "log_var true_log_var", "log_var log_var_p", "mean mean_p", "label null", "strong other",
    "d0 d1", "r0 r1", "last older", "cos sin", "first second third last", "flat_a flat_b",
    "of_a of_b", "of_c of_guided", "h whole", "whole decay", "black white", "start end", "kl "
    "likelihood", "level t", "begin high", "z new", "steps start", "r k", "nodes count",
    "prior std", "beta_start beta_end", "z y", "estimate x0", "clean s", "ours theirs",
    "moved trace", "d c", "share factor", "noisiest cleanest", "prediction target",
    "raised sigma", "above t",
    "last stride",
)  # fmt: skip

CONFUSED: dict[str, set[str]] = {}
"""Names that a slip would exchange."""
for _group in _GROUPS:
    for _name in _group.split():
        CONFUSED.setdefault(_name, set()).update(set(_group.split()) - {_name})
CONFUSED = {name: sorted(others) for name, others in CONFUSED.items()}

WITHOUT = {}
"""Units that hold no mistake worth planting, and why."""

EQUIVALENT: tuple[tuple[str, str, str, str], ...] = ()
"""(unit, operator, part of `before -> after`, why): what no test can notice."""

SPECIAL: tuple[tuple[str, str, str, str, str], ...] = ()
"""(unit, set | return | argument, name or callee:position, expression, what is wrong)."""

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

WITHOUT = {
    "UniformLogSNR.__init__": "a default that no paper has",
    "AutoGuidance.__init__": "a default that no paper has",
    "ConstantWeight.on_x0": "only raises",
    "Objective.learned_state": "the default of a hook, nothing",
    "TimestepDistribution.importance": "the default of a hook, None",
    "TimestepDistribution.state_dict": "the default of a hook, nothing",
    "permutation": "of data and metrics alone, whose tests are not run here",
    "coins": "of data alone, whose tests are not run here",
    "Sampler.memory": "each sampler that looks back has its own",
}
"""Units that hold no mistake worth planting, and why."""

EQUIVALENT = (
    *(
        (name, "default", "", "chosen here: no paper has it")
        for name in ("Adaptive.__init__", "RePaint.__init__", "Interval.__init__", "flow_path")
    ),
    *(
        (name, "default", " 2 ", "an order like another")
        for name in ("DPMSolverMultistep.__init__", "UniPC.__init__", "AdamsBashforth.__init__")
    ),
    ("ImportanceTime.__init__", "default", " 100 ", "chosen here: no paper has it"),
    ("DDIM.step", "drop call", "clamp_min", "a root squared is the number again: never below 0"),
    ("Adaptive.step", "comparison", "h <= end - tau", "rounding of the end alone"),
    ("Karras.visited", "comparison", ">= high", "nothing equals a tolerance"),
    ("check_same_schedule", "number", "", "which levels are compared"),
    *(
        (f"{method}.nodes", "number", "0.0 -> 1.0", "the first node is the start, never read")
        for method in ("Midpoint", "RK4", "Heun")
    ),
    ("check_same_schedule", "drop", "torch.allclose", "no two schedules share one of the three"),
    *(
        ("check_recoverable", operator, part, "alpha vanishes at t = 1 alone")
        for operator, part in (
            ("drop", "schedule.steps"),
            ("arithmetic", "schedule.steps"),
            ("number", "1 -> 2"),
        )
    ),
    ("Hutchinson.__init__", "exchange arguments", "v < 0", "v^T J v is even in v"),
    ("slerp", "drop call", "clamp_min", "an image of zeros alone: linear in place of the arc"),
    ("Hutchinson.__init__", "comparison", "v <= 0", "no normal number is 0"),
    ("SigmoidBetas.__init__", "drop", "-> falling - falling[-1]", "a common factor cancels"),
    ("bound_term", "comparison", "s.sigma > 0 -> s.sigma < 0", "a short cut, never taken"),
    (
        *("self_conditioned", "comparison", "<="),
        "a uniform number never equals the share",
    ),
    (
        *("RegressionTerm.forward", "exchange arguments", "self.error"),
        "errors are even in the difference",
    ),
    (
        *("ContinuousCosine.time_of", "drop statement", "log_snr"),
        "log-SNRs are float64 tensors already",
    ),
    ("ImportanceTime.probabilities", "name", "square().sum", "a common factor cancels"),
)
"""(unit, operator, part of `before -> after`, why): what no test can notice."""

SPECIAL = (
    ("Independent.__call__", "return", "", "eps.flip(0)", "noise in reverse order"),
    (
        *("OptimalTransport.__call__", "set", "groups"),
        *("torch.zeros(len(x0), dtype=torch.long)", "labels are ignored"),
    ),
    ("levels", "return", "", "[Level(*p[::-1]) for p in zip(*level)]", "parts in another order"),
    ("c_noise_of", "set", "number", "level.t", "told t, not c_noise"),
    ("network_output", "set", "named['to']", "c_noise", "told where it is, not goes"),
    ("Here.ask", "argument", "Query:2", "None", "never says where it goes"),
    (
        *("with_each", "set", "at"),
        "[p if p is None or not p.t.ndim else Level(*(v.repeat_interleave(n) for v in p)) "
        "for p in (query.at, query.to)]",
        "levels in another order than the rows",
    ),
    ("joined", "argument", "cat:0", "same[::-1]", "parts in another order"),
    ("seeded_generator", "argument", "repr:0", "keys[:-1]", "the last key does not count"),
    ("seeded_generator", "argument", "repr:0", "''.join(map(str, keys))", "1, 23 is 12, 3"),
    ("Denoising.__init__", "set", "self.coupling", "Independent()", "the coupling is ignored"),
    (
        "TimestepDistribution.__call__",
        "return",
        "",
        "self.times(schedule, noise.uniform(1).expand(n))",
        "one",
    ),
    ("UniformTime.quantile", "return", "", "u**2", "clean times come more often"),
    ("LogNormalSigma.times", "return", "", "super().times(schedule, u)", "stretched, not moved"),
    ("StratifiedTime.quantile", "return", "", "u", "the law's own quantile is ignored"),
    ("StratifiedTime.__call__", "return", "", "self.law.quantile(u, schedule)", "untrained times"),
    ("AtOneTime.weighed", "argument", "observe:2", "t", "the law is told times for losses"),
    (
        *("ImportanceTime.state_dict", "return", ""),
        *("{'losses': self.losses, 'counts': self.counts}", "what was stored goes on changing"),
    ),
    (
        *("ImportanceTime.load_state_dict", "set", "self.counts"),
        *("state['losses'].clone(), self.counts", "counts are not loaded"),
    ),
    (
        *("ImportanceTime.load_state_dict", "set", "self.losses"),
        *("self.losses, state['counts'].clone()", "losses are not loaded"),
    ),
    ("ConstantWeight.on_target", "return", "", "2 * torch.ones_like(level.alpha)", "2 for 1"),
    (
        *("Adaptive._trial", "set", "error"),
        *("((difference / scale) ** 2).mean().sqrt().double().cpu().expand(len(z))", "one for all"),
    ),
    (
        *("SampleNoise.__init__", "set", "self.generators"),
        "[seeded_generator('sample', seed + k) for k in range(first, first + count)]",
        "seed 0's image 1 is seed 1's image 0",
    ),
    ("SampleNoise.uniform", "argument", "stack:0", "drawn[:1] * n", "one number for all images"),
    ("FrameSampler.__init__", "set", "self.frame", "Straight()", "the frame is ignored"),
    ("Sampler.__init__", "set", "self.grid", "Trailing()", "the grid is ignored"),
    ("Listed.count", "return", "", "len(self.listed)", "long lists are refused"),
    ("RePaint.count", "return", "", "super().count(schedule, steps, start)", "not the base's"),
)
"""(unit, set | return | argument, name or callee:position, expression, what is wrong)."""

"""Noise schedules (`schedule`): `tables` of betas, and formulas of t (`continuous`)."""

from diffusion_lab.diffusion.schedules.continuous import (
    ContinuousCosine,
    ContinuousVP,
    RectifiedFlow,
    VarianceExploding,
)
from diffusion_lab.diffusion.schedules.schedule import CONTINUOUS_T_MIN, Schedule
from diffusion_lab.diffusion.schedules.tables import (
    BetaTable,
    CosineBetas,
    LinearBetas,
    QuadraticBetas,
    SigmoidBetas,
    Table,
    ZeroTerminalSNR,
)

__all__ = [
    "CONTINUOUS_T_MIN",
    "BetaTable",
    "ContinuousCosine",
    "ContinuousVP",
    "CosineBetas",
    "LinearBetas",
    "QuadraticBetas",
    "RectifiedFlow",
    "Schedule",
    "SigmoidBetas",
    "Table",
    "VarianceExploding",
    "ZeroTerminalSNR",
]

"""A laboratory to understand and measure diffusion models on small images.

`load(path)` gives the model of a checkpoint or run folder. Everything else is imported from its
room: `diffusion`, `sampling`, `denoisers`, `data`, `metrics`, `training`, `reporting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_lab.loading import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # lazily: the command line must answer before torch is imported
        from diffusion_lab.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

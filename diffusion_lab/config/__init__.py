"""Composing, checking and instantiating: the only place that talks to Hydra.

    from diffusion_lab.config import compose, check, instantiate
    cfg = compose("train", ["experiment=quickstart", "optimizer.lr=1e-3"])
    faults = check(cfg)                      # [] or every fault of the config, one sentence each
    sampler = instantiate(cfg.sampler)

`running` turns a function of a config into a command; `arguments` rewrites what was typed before
Hydra sees it; `suggestions` explains what Hydra refuses; `signatures` and `rules` know what a
constructor takes, without importing it; `checking` collects all faults; `building` instantiates
from an allow-list; `sweeps` keeps the books of a multirun; `streams` lets a
reader of the output stop. Nothing here imports torch when it is
imported, so that `--help` and a mistyped key answer at once.
"""

from diffusion_lab.config.building import instantiate
from diffusion_lab.config.checking import check, refuse
from diffusion_lab.config.composing import CONF, compose, settle
from diffusion_lab.config.running import run

__all__ = ["CONF", "check", "compose", "instantiate", "refuse", "run", "settle"]

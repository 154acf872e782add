"""From a command line to a checked config: the only place that talks to Hydra and OmegaConf.

    from diffusion_lab.config.arguments import compose
    from diffusion_lab.config.checking import check
    cfg = compose("train", ["experiment=quickstart", "optimizer.lr=1e-3"])
    errors = check(cfg)                      # [] or every error of the config, one sentence each

`groups` knows the files of `conf/`, `words` what is typed; `arguments` rewrites it before Hydra
sees it and composes; `suggestions` explains what Hydra refuses; `signatures` and `rules` know what
a constructor takes, without importing it; `checking` collects all errors; `building` instantiates
from an allow-list; `running` turns a function of a config into a command. Nothing here imports
torch when it is imported, so that `--help` and a mistyped key answer at once.
"""

"""From a command line to a checked config: the only place that talks to Hydra and OmegaConf.

    from diffusion_lab.config.arguments import compose
    from diffusion_lab.config.checking import check
    cfg = compose("train", ["experiment=quickstart", "optimizer.lr=1e-3"])
    errors = check(cfg)                      # [] or every error of the config, one sentence each

`composing` knows the files of `conf/` and what Hydra makes of them, `words` what is typed;
`arguments` rewrites it before Hydra sees it, `checkpoint_defaults` puts what a checkpoint stores in
front of it, `messages` says what is mistyped. `signatures` and `rules` know what a constructor
takes, without importing it; `checking` collects all errors, `cross_field_checks` those of several
keys; `building` instantiates from an allow-list; `main` turns a function of a config into a
command. Nothing here imports torch when it is imported, so that `--help` and a mistyped key answer
at once.
"""

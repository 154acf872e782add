import os

from hypothesis import settings

settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("default")

os.environ.setdefault("WANDB_MODE", "offline")

import os
import sys

from hypothesis import settings

settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.load_profile("default")

os.environ.setdefault("WANDB_MODE", "offline")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores, set before torch
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# About a hundred tests start commands: each would compile torch and Lightning anew (9 s for 6 s).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

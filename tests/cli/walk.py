"""A command with its calls written down: python walk.py COMMAND WORDS... prints them as JSON.

Only functions of `diffusion_lab` count, not the bodies of modules and classes with what they call,
nor comprehensions. What `ranges.checked` adds to a constructor counts as the constructor.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path

import diffusion_lab
from diffusion_lab import ranges
from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe

ROOT = Path(diffusion_lab.__file__).parent
COMPREHENSIONS = {"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>", "<module>"}


def enforces_ranges(frame):
    """Whether a function is `ranges.checked`, or runs on behalf of a wrapper that it made."""
    while frame is not None and frame.f_code.co_filename == ranges.__file__:
        if frame.f_code.co_name in ("checked", "wrapper"):
            return True
        frame = frame.f_back
    return False


def main(command, *words):
    calls = []

    def note(frame, event, _):
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_NEWLOCALS and code.co_name not in COMPREHENSIONS
        called = frame.f_back is None or frame.f_back.f_code.co_flags & inspect.CO_OPTIMIZED
        if not (event == "call" and is_function and called) or enforces_ranges(frame):
            return
        if code.co_filename.startswith(f"{ROOT}/"):
            calls.append((str(Path(code.co_filename).relative_to(ROOT)), code.co_name))

    features.recipe_for = features.second_recipe_for = lambda n: Recipe(steps=2, batch_size=32)
    task = importlib.import_module(f"diffusion_lab.{command}").main
    sys.argv = [command, *words]
    sys.setprofile(note)
    try:
        task()
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        print("\n" + json.dumps(calls))


if __name__ == "__main__":
    main(*sys.argv[1:])

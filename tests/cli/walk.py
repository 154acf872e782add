"""A command with its calls written down: python walk.py COMMAND WORDS... prints them as JSON.

Only functions of `diffusion_lab` count, not the bodies of modules and classes, nor comprehensions.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path

import diffusion_lab
from diffusion_lab.metrics import features
from diffusion_lab.metrics.small_classifier import Recipe

ROOT = Path(diffusion_lab.__file__).parent
COMPREHENSIONS = {"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>", "<module>"}


def main(command, *words):
    calls = []

    def note(frame, event, _):
        code = frame.f_code
        is_function = code.co_flags & inspect.CO_NEWLOCALS and code.co_name not in COMPREHENSIONS
        if event == "call" and is_function and code.co_filename.startswith(f"{ROOT}/"):
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

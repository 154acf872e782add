"""Record what today's code gives: `uv run python tests/net/record.py`.

Everything is run twice and only written if both times gave the same. To be done when a change of
numbers is meant, by whoever means it, and told in the commit; never to make a restructuring pass.

`uv run python tests/net/record.py checkpoints` also writes the stored checkpoints anew, by training
without interruption, and refuses if going on from them gives other losses. Those of format 1 stand
for what people have on their disks: they stay as they are for as long as that format can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

from comparing import PORTABLE, RECORD, measured
from touching import write_stored
from words import HERE, PRESETS, STORED


def write_checkpoints() -> dict[str, dict[str, list[float]]]:
    """Write the stored checkpoints; the curves of their runs, which went on."""
    os.environ.update(PORTABLE)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return {name: write_stored(name, HERE / f"{name}.ckpt") for name in STORED}


def main() -> None:
    """The command line, see the head of this file."""
    whole = write_checkpoints() if sys.argv[1:] == ["checkpoints"] else {}
    jobs, found = [*PRESETS, *STORED], []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(jobs, Path(folder)))
    failed = [result["error"] for result in found[0]["jobs"].values() if "error" in result]
    if failed:
        sys.exit("\n".join(failed))
    if found[0] != found[1]:
        sys.exit("two runs in a row differ: nothing was written")
    for name, curves in whole.items():
        resumed = {key: found[0]["jobs"][name][key] for key in curves}
        if resumed != curves:
            sys.exit(f"{name}: going on gives {resumed}, without interruption it was {curves}")
    RECORD.write_text(json.dumps(found[0], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

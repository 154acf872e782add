"""Typing a command of the package in this process, and the commands that the READMEs show."""

import io
import re
import sys
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
READMES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in (ROOT / "conf", ROOT / "diffusion_lab", ROOT / "tests")
    for path in [ROOT / "README.md", *sorted(folder.rglob("README.md"))]
}
"""Path of each README -> its text."""


def blocks(language, text=None):
    """The code blocks of a language, of all READMEs or of one text."""
    texts = READMES.values() if text is None else [text]
    return [block for t in texts for block in re.findall(rf"```{language}\n(.*?)```", t, re.S)]


LINES = list(
    dict.fromkeys(
        re.sub(r"\s+#.*", "", line).strip()
        for block in blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
        if "diffusion_lab." in line or "diffusion-lab-" in line
    )
)
"""The command lines of the package in all READMEs."""


def typed(command, *words):
    """(exit status, what stands on stderr) of `command words...`, typed in this process."""
    told = io.StringIO()
    argv = [command, *(str(word) for word in words)]
    with patch.object(sys, "argv", argv), redirect_stderr(told):
        try:
            import_module(f"diffusion_lab.{command}").main()
            status = 0
        except SystemExit as left:
            status = left.code or 0
    return status, told.getvalue()

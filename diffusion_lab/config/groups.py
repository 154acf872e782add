"""The groups of `conf/` and their options, told from the files alone.

`conf/` stands beside the package in a checkout and inside it in an installed wheel.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _conf_folder() -> Path:
    for folder in (_PACKAGE.parent / "conf", _PACKAGE / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"conf/train.yaml is neither in {_PACKAGE.parent} nor in {_PACKAGE}")


CONF = _conf_folder()
"""The folder of all yaml files."""


def options(group: str) -> list[str]:
    """Names that may stand after `group=`; empty if there is no such group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """All groups of `conf/`, nested ones as a/b."""
    folders = {path.parent for path in CONF.rglob("*.yaml")} - {CONF}
    return sorted(folder.relative_to(CONF).as_posix() for folder in folders)


def names_in_yaml() -> set[str]:
    """All names that stand before a colon somewhere in `conf/`, in comments too."""
    texts = (path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    return {name for text in texts for name in re.findall(r"\w+(?=\s*:)", text)}

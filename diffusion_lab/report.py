"""`python -m diffusion_lab.report run=PATH`: one HTML page of a run or a sweep."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from diffusion_lab.config.main import run
from diffusion_lab.errors import ConfigError

RUN_FILES = ("sweep.csv", "config.yaml", "summary.json", "metrics.csv", "samples")


def folder_of(path: str | Path) -> Path:
    """The run or sweep folder that a path names, itself or by a file somewhere inside it.

    Raises:
        ConfigError: No such path, or a file outside of any run.
    """
    given = Path(path).expanduser()
    if not given.exists():
        raise ConfigError(f"run={str(path)!r} does not exist: give a run's or a sweep's folder")
    if given.is_dir():
        return given
    holders = [up for up in given.parents if any((up / name).exists() for name in RUN_FILES)]
    if not holders:
        raise ConfigError(
            f"run={str(path)!r} is a file of no run: give a run's or a sweep's folder"
        )
    return holders[0]


def report(cfg: DictConfig) -> Path:
    """Write the page that `cfg` asks for, print where it is, and return its path.

    Raises:
        ConfigError: No such folder, or nothing of a run in it.
    """
    if cfg.get("run") in (None, "", "???"):
        raise ConfigError("run= is missing: give a run's or a sweep's folder, run=PATH")
    from diffusion_lab.reporting.html import write_report

    try:
        page = write_report(folder_of(cfg.run), cfg.out)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(page)
    return page


def main() -> None:
    """The command line."""
    run("report", report)


if __name__ == "__main__":
    main()

"""Run folders: which one a command means, what is in it at the start, and going on with one.

Hydra makes no folder. The name is settled before composing and becomes part of the command line,
so that the other processes of a distributed run, which repeat that line, use the same folder.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_lab.checkpoints.finding import AUTO, find_checkpoint
from diffusion_lab.config.arguments import compose
from diffusion_lab.config.words import Typed, key_of, quoted, trusted, value_of
from diffusion_lab.errors import ConfigError
from diffusion_lab.files import read_record, write_atomically
from diffusion_lab.runs.differences import differences
from diffusion_lab.runs.leaderboard import FINISHED
from diffusion_lab.runs.stored_run import refuse_other_data, typed_over, words_of

_OF_THE_COMMAND = frozenset({"run_dir", "resume"})
_NOTHING = (None, "", "null")


def is_rank_zero() -> bool:
    """Whether this process decides and writes; told from the launcher's environment."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return not any(os.environ.get(name, "0") not in {"0", ""} for name in ranks)


def typed_now() -> tuple[list[str], dict[str, str]]:
    """(overrides, choices of groups) of the running command; empty ones outside of a command."""
    if not HydraConfig.initialized():
        return [], {}
    hydra = HydraConfig.get()
    choices = hydra.runtime.choices.items()
    own = {str(k): str(v) for k, v in choices if not str(k).startswith("hydra") and v is not None}
    return list(hydra.overrides.task), own


def prepare(typed: Typed) -> list[str]:
    """What was typed, with `run_dir` settled and `resume` and `init_from` made paths.

    Raises:
        ConfigError: Nothing is there to be resumed, or what was typed excludes each other.
        CheckpointError: There is nothing to start from.
    """
    overrides = list(typed.overrides)
    _check_start(overrides, typed.multirun)
    if typed.multirun:
        return with_sweep_folder(overrides)
    if value_of("resume", overrides) not in _NOTHING:
        overrides = with_resume(overrides)
    elif value_of("init_from", overrides) not in _NOTHING:
        overrides = with_start(overrides)
    if value_of("run_dir", overrides) in (None, "", "null"):
        folder = "${paths.output_dir}/${name}/" + _stamp()
        overrides = [word for word in overrides if key_of(word) != "run_dir"]
        overrides.append(f"run_dir={folder}")
    return overrides


def _check_start(overrides: Sequence[str], multirun: bool) -> None:
    """Refuse an `init_from` that cannot be meant."""
    start = value_of("init_from", overrides)
    if start in _NOTHING:
        return
    if value_of("resume", overrides) not in _NOTHING:
        raise ConfigError(
            "init_from starts a new run and resume goes on with one, with the weights that it has: "
            "leave one of them out"
        )
    if multirun and start in AUTO:
        raise ConfigError(
            f"init_from={start}: the newest run changes while a sweep runs; name the run"
        )


def with_start(overrides: list[str]) -> list[str]:
    """The words with `init_from` made the path of a file: all processes are to read the same.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    output = Path("outputs")
    if value_of("init_from", overrides) in AUTO:
        places = [word for word in overrides if key_of(word).startswith("paths")]
        output = Path(str(compose("train", places, settled=False).paths.output_dir))
    found = find_checkpoint(str(value_of("init_from", overrides)), output)
    return [*(w for w in overrides if key_of(w) != "init_from"), quoted("init_from", found)]


def with_sweep_folder(overrides: list[str]) -> list[str]:
    """The sweep's folder: `run_dir`, or one named by a hash of the command, for its repetition."""
    import hashlib

    if value_of("run_dir", overrides) not in (None, "", "null"):
        return overrides
    words = sorted(word for word in overrides if key_of(word) not in _OF_THE_COMMAND)
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
    places = [word for word in overrides if key_of(word).startswith("paths")]
    output = str(compose("train", places, settled=False).paths.output_dir)
    return [*overrides, quoted("run_dir", Path(output) / "sweeps" / digest)]


def with_resume(overrides: list[str]) -> list[str]:
    """The words that give the run's configuration, then what is typed now; `resume` made a path.

    Raises:
        ConfigError: There is no such run, or its configuration names what may not be built.
        CheckpointError: It has no good checkpoint.
    """
    text = str(value_of("resume", overrides))
    target = _meant_by_auto(overrides) if text == "auto" else Path(text).expanduser()
    now = [word for word in overrides if key_of(word) not in _OF_THE_COMMAND]
    typed_folder = value_of("run_dir", overrides)
    if target is None:
        print(f"Nothing to resume in {typed_folder} yet: starting.")
        forget_unsaved(Path(str(typed_folder)).expanduser())
        return [*now, quoted("run_dir", str(typed_folder))]
    if not target.exists():
        raise ConfigError(f"resume={text}: there is no such file or folder")
    from diffusion_lab.checkpoints.format import read_newest

    stored = read_newest(target)[1]["diffusion_lab"]
    choices = stored["choices"]
    # The recipe is the run's own; naming it again, to say which run is meant, changes nothing.
    same = {f"{group}={choices.get(group)}" for group in ("experiment", "budget")}
    now = [word for word in now if word not in same]
    before = words_of(stored["config"], choices, trusted(now)) if stored["config"] else []
    refuse_other_data(stored["config"], now)
    _tell_offline(stored["config"], now)
    goal = run_folder_of(target) if typed_folder in (None, "", "null") else typed_folder
    words = typed_over(before, now)
    start = stored.get("init_from")
    kept = [quoted("init_from", start["path"])] if start else []  # a record: it is not read again
    return [*words, *kept, quoted("run_dir", goal), quoted("resume", target)]


def _tell_offline(config: dict[str, Any], now: Sequence[str]) -> None:
    """Say that a run which was uploaded goes on without, unless it is typed."""
    logger = config.get("logger") or {}
    if logger.get("offline") is False and value_of("logger.offline", now) is None:
        print("This run was uploaded while it trained; logger.offline=false does that again.")


def run_folder_of(path: Path) -> Path:
    """The run folder that a checkpoint stands in; a folder is itself. Links are followed."""
    if path.is_symlink() or path.parent.is_symlink():
        path = path.resolve()
    if path.is_dir():
        return path.parent if path.name == "checkpoints" else path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def _meant_by_auto(overrides: list[str]) -> Path | None:
    """`run_dir`'s run (None if it has no checkpoint), or the newest unfinished one."""
    typed = value_of("run_dir", overrides)
    if typed not in (None, "", "null"):
        folder = Path(str(typed)).expanduser()
        return folder if has_checkpoint(folder) else None
    words = [word for word in overrides if key_of(word) not in _OF_THE_COMMAND]
    cfg = compose("train", words, settled=False)
    home = Path(str(cfg.paths.output_dir)) / str(cfg.name)
    runs = [f.parent for f in home.glob("*/config.yaml") if has_checkpoint(f.parent)]
    open_runs = [run for run in runs if status_of(run) != FINISHED]
    if open_runs:
        return max(open_runs, key=_last_written)
    done = f" ({len(runs)} finished)" if runs else ""
    raise ConfigError(
        f"resume=auto: no unfinished run with a checkpoint in {home}{done}; leave resume out to "
        "start one, or name it, resume=PATH, to train a finished one further"
    )


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint."""
    return any((folder / "checkpoints").glob("*.ckpt"))


def forget_unsaved(folder: Path) -> None:
    """Let a run begin anew in the folder of one that saved nothing; by the first process."""
    if is_rank_zero():
        for name in ("config.yaml", "metrics.csv"):
            (folder / name).unlink(missing_ok=True)


def _last_written(folder: Path) -> float:
    return max(file.stat().st_mtime for file in (folder / "checkpoints").glob("*.ckpt"))


def summary_of(folder: Path) -> dict[str, Any]:
    """summary.json of a run folder; {} where it is missing or torn."""
    return read_record(folder / "summary.json")


def status_of(folder: Path) -> str | None:
    """The status that a run recorded of itself."""
    return summary_of(folder).get("status")


def _stamp() -> str:
    """Date and time; of the scheduler's job where one started several processes at once."""
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
        given = os.environ.get(name, "")
        if given and given != "none" and int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
            return f"{name.split('_')[0].lower()}_" + re.sub(r"[^A-Za-z0-9._-]", "-", given)
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def refuse_links(folder: Path) -> None:
    """Refuse a run folder with links out of it: what a run writes would land there.

    Folders of earlier W&B runs are passed over: W&B links its own log from there, and a process
    that goes on makes a new one.

    Raises:
        ConfigError: Naming the first one.
    """
    home = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        of_wandb = name.parts[0] == "wandb" and len(name.parts) > 2
        if path.is_symlink() and not of_wandb and not _leads_into(home, path):
            raise ConfigError(
                f"run_dir={folder}: {name} is a link to {os.readlink(path)}, out of the folder, "
                "where the run would write; put what you know in its place"
            )


def refuse_link_below(home: Path, name: str) -> None:
    """Refuse a folder inside a run folder that a link leads out of it to.

    Raises:
        ConfigError: Naming it.
    """
    if not _leads_into(home.resolve(), home / name):
        raise ConfigError(f"{home / name} is a link out of {home}, where files would be written")


def _leads_into(home: Path, link: Path) -> bool:
    try:
        return link.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # a circle of links
        return False


def open_run(
    cfg: DictConfig, overrides: Sequence[str] = (), choices: Mapping[str, str] | None = None
) -> Path:
    """Make the run folder; sets `cfg.run_dir`.

    In it: config.yaml, overrides.txt, and differs.json, see `runs.differences`.

    Args:
        cfg: The config of the run; a null `run_dir` is given its default name.
        overrides: What was typed.
        choices: Chosen options of the groups; None where they are unknown.

    Returns:
        The folder.

    Raises:
        ConfigError: It holds a run already that is not being resumed, or cannot be written.
    """
    if not cfg.get("run_dir"):
        cfg.run_dir = str(Path(str(cfg.paths.output_dir)) / str(cfg.name) / _stamp())
    folder = Path(str(cfg.run_dir))
    if not is_rank_zero():
        return folder
    if (folder / "config.yaml").exists() and not cfg.get("resume"):
        raise ConfigError(
            f"run_dir={folder} holds a run already: resume=auto goes on with it; a new run needs "
            "another run_dir"
        )
    words = [w for w in overrides if key_of(w) not in _OF_THE_COMMAND]
    words = [w for w in words if key_of(w).split(".")[0].split("/")[0] not in ("hydra", "sweep")]
    differ = differences(cfg, dict(choices or {}))
    refuse_links(folder)
    files = {
        "differs.json": json.dumps(differ, default=str),
        "config.yaml": OmegaConf.to_yaml(cfg, resolve=True),
        "overrides.txt": "".join(f"{w}\n" for w in words),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(folder / name, text.encode())
    except OSError as error:
        raise ConfigError(
            f"run_dir={folder} cannot be written: {error.strerror}; choose another"
        ) from None
    return folder

"""Do the numeric tests notice mistakes? `uv run python tests/mutations/run.py`, from anywhere.

Plants the mistakes of `mutations.py` one by one in a copy of the package and runs the tests there.
A mistake is caught where a test fails, or where they do not end in time. Exit status 1 if one
survived, 2 if the check itself could not be made.
"""

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_TESTS = ("tests/numeric", "tests/reference")
LIMIT = 300.0
"""Seconds after which a run of the tests counts as failed; thrice the baseline's where longer."""
BASELINE_LIMIT = 3600.0


def complaints(mutations: Sequence[Mutation]) -> list[str]:
    """What is wrong with the list itself: texts that are not found exactly once."""
    found = []
    for mutation in mutations:
        try:
            mutation.applied((ROOT / "diffusion_lab" / mutation.file).read_text())
        except (OSError, ValueError) as error:
            found.append(str(error))
    return found


def copied(folder: Path) -> Path:
    """A copy of the package, its configuration and its tests in `folder`."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", "mutations")
    for name in ("diffusion_lab", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables of a run in the copy: its own package, no caches, one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **threads, **own}


def tested(folder: Path, tests: Sequence[str], limit: float, *options: str) -> tuple[int, str]:
    """Exit status and output of pytest in the copy; status -1 where it took too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *options, *tests],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return -1, output
    return process.returncode, output


def test_files(paths: Sequence[str]) -> list[str]:
    """The test files of folders, small ones first; files and test names as they are."""
    files: list[str] = []
    for path in paths:
        if (ROOT / path).is_dir():
            found = sorted((ROOT / path).rglob("test_*.py"), key=lambda file: file.stat().st_size)
            files += [str(file.relative_to(ROOT)) for file in found]
        else:
            files.append(path)
    return files


def baseline(folder: Path, tests: list[str]) -> tuple[list[str], float]:
    """The tests, quick files first, and the time limit, after a run without a mistake.

    Raises:
        RuntimeError: a test fails without any mistake.
    """
    report, start = folder / "baseline.xml", time.monotonic()
    status, output = tested(
        folder, tests, BASELINE_LIMIT, f"--junitxml={report}", "-o", "junit_family=xunit1"
    )
    if status:
        raise RuntimeError(f"the tests fail without any mistake:\n{output[-4000:]}")
    seconds = dict.fromkeys(tests, 0.0)
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("file", "")
        if file in seconds:
            seconds[file] += float(case.get("time", 0))
    limit = max(LIMIT, 3 * (time.monotonic() - start))
    return sorted(tests, key=lambda file: seconds[file]), limit


def judged(folder: Path, mutation: Mutation, tests: list[str], limit: float) -> str | None:
    """Which test caught the mistake, or None."""
    path = folder / "diffusion_lab" / mutation.file
    source = path.read_text()
    path.write_text(mutation.applied(source))
    try:
        status, output = tested(folder, tests, limit)
    finally:
        path.write_text(source)
    if status == 0:
        return None
    if status == -1:
        return f"no end within {limit:.0f} s"
    if status not in (1, 2):  # failed, or a file that could not be collected
        raise RuntimeError(f"pytest ended with status {status}:\n{output[-4000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return failed[1] if failed else "a test that pytest did not name"


def checked_import(folder: Path) -> None:
    """Refuse to go on where the copy is not what the tests would import."""
    found = subprocess.run(
        [sys.executable, "-c", "import diffusion_lab; print(diffusion_lab.__file__)"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(found).resolve().is_relative_to(folder.resolve()):
        raise RuntimeError(f"the tests would import {found}, not the copy in {folder}")


def run(mutations: Sequence[Mutation], tests: list[str], jobs: int, skip_baseline: bool) -> int:
    """Plant all mistakes and report; the exit status."""
    start, limit = time.monotonic(), LIMIT
    survivors: dict[int, Mutation] = {}
    with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
        folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for job in range(jobs):
            folders.put(copied(Path(temporary) / str(job)))
        first = Path(temporary) / "0"
        checked_import(first)
        if not skip_baseline:
            tests, limit = baseline(first, tests)
            print(f"the tests pass without a mistake ({time.monotonic() - start:.0f} s)")

        def one(job: tuple[int, Mutation]) -> None:
            number, mutation = job
            folder = folders.get()
            try:
                caught = judged(folder, mutation, tests, limit)
            finally:
                folders.put(folder)
            if caught is None:
                survivors[number] = mutation
            verdict = "SURVIVED" if caught is None else "CAUGHT  "
            by = "" if caught is None else f"\n          by {caught}"
            print(f"{verdict}  {mutation.file}: {mutation.wrong}{by}", flush=True)

        pool = ThreadPoolExecutor(jobs)
        try:
            for _ in pool.map(one, enumerate(mutations)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    print(
        f"\n{len(mutations) - len(survivors)} of {len(mutations)} caught "
        f"({time.monotonic() - start:.0f} s)"
    )
    for _, mutation in sorted(survivors.items()):
        print(
            f"survived: {mutation.file}: {mutation.wrong}\n  - {mutation.old}\n  + {mutation.new}"
        )
    return 1 if survivors else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="those with a TEXT in file or wrong"
    )
    parser.add_argument("--list", action="store_true", help="print the mistakes and do nothing")
    parser.add_argument("--check", action="store_true", help="only look for the texts to replace")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--tests", nargs="+", default=DEFAULT_TESTS, metavar="PATH")
    parser.add_argument("--skip-baseline", action="store_true", help="no run without a mistake")
    args = parser.parse_args()
    mutations = [
        m for m in MUTATIONS if any(t in f"diffusion_lab/{m.file}\n{m.wrong}" for t in args.only)
    ]
    if args.list:
        for mutation in mutations:
            print(f"{mutation.file}: {mutation.wrong}")
        return 0
    found = complaints(mutations)
    for complaint in found:
        print(complaint)
    if found or not mutations:
        print(f"{len(found)} of {len(mutations)} mistakes cannot be planted")
        return 2
    if args.check:
        print(f"{len(mutations)} mistakes, each text found exactly once")
        return 0
    jobs = max(1, min(args.jobs, len(mutations)))
    try:
        return run(mutations, test_files(args.tests), jobs, args.skip_baseline)
    except RuntimeError as error:
        print(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())

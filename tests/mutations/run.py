"""Do the numeric tests notice mistakes? `uv run python tests/mutations/run.py`, from anywhere.

Plants the mistakes of `mutations.py` one by one in a copy of the package and runs there the tests
that call the function, those first that caught another mistake in it, then the quick ones. A
mistake is caught where a test fails, or does not end in time. Verdicts are kept, so that a run
that was stopped goes on. Exit status 1 if a mistake survived, 2 if the check could not be made.
"""

import argparse
import contextlib
import copy
import gc
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
from mutations import PACKAGE, Mutant, mutants, only, trees, units

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/numeric", "tests/reference")
KEPT = ROOT / "outputs" / "mutations.json"
LIMIT = 20.0
"""Seconds that any test may take; twenty times what it took without a mistake where longer."""
HEAVY = ("torch", "scipy.optimize", "hypothesis", "numpy.testing", "einops")
"""What the tests import, once for all processes."""
NOTHING = {"files": {}, "seconds": {}, "calls": {}, "caught": {}}
"""What is known before the first run."""
FORK = multiprocessing.get_context("fork")


class Watched:
    """Without a mistake: what each test calls of the two packages, and how long it takes."""

    def __init__(self, folder: Path) -> None:
        self.start = str(folder / "diffusion_lab") + os.sep
        self.called: defaultdict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """All calls count for `name`."""
        hits = self.called[name]

        def call(frame, event, argument):
            code = frame.f_code
            if code.co_filename.startswith(self.start):
                file = code.co_filename[len(self.start) :]
                hits.add(f"{file} {code.co_qualname.split('.<locals>')[0]}")

        sys.settrace(call)
        try:
            yield
        finally:
            sys.settrace(None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        """What the files of tests call when they are imported counts for all of their tests."""
        with self.watching(collector.nodeid):
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        """One test."""
        start = time.monotonic()
        with self.watching(item.nodeid):
            yield
        self.seconds[item.nodeid] = time.monotonic() - start

    def result(self) -> dict:
        """Seconds and calls by test."""
        files = {name: self.called[name] for name in self.called if name.endswith(".py")}
        calls = {
            name: sorted(self.called[name] | files.get(name.split("::")[0], set()))
            for name in self.seconds
        }
        return {"seconds": self.seconds, "calls": calls}


class Hunted:
    """With a mistake: the chosen tests in their order, each with its time, up to a failure."""

    def __init__(self, order: Sequence[str], seconds: dict[str, float]) -> None:
        self.place = {name: i for i, name in enumerate(order)}
        self.seconds, self.failed = seconds, ""

    def pytest_collection(self):
        """The first failing example will do: none is made smaller."""
        if hypothesis := sys.modules.get("hypothesis"):
            phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
            quick = hypothesis.settings(hypothesis.settings(), phases=phases)
            hypothesis.settings.register_profile("quick", quick)
            hypothesis.settings.load_profile("quick")

    def pytest_collection_modifyitems(self, items):
        """Those of the list."""
        chosen = [item for item in items if item.nodeid in self.place]
        items[:] = sorted(chosen, key=lambda item: self.place[item.nodeid])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        """The alarm ends the process."""
        signal.alarm(int(max(LIMIT, 20 * self.seconds[item.nodeid])))

    def pytest_runtest_logreport(self, report):
        """The first failure."""
        self.failed = self.failed or report.nodeid * report.failed

    def pytest_collectreport(self, report):
        """A file that cannot be imported."""
        self.failed = self.failed or report.nodeid * report.failed

    def result(self) -> str:
        """Which test failed."""
        return self.failed


def tested(folder: Path, paths: Sequence[str], plugin: Watched | Hunted, out: Connection) -> None:
    """Pytest in the copy, in a process of its own; sends the exit status and what was found."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
        status = pytest.main([*options, "-o", "addopts=-m 'not slow'", *paths], plugins=[plugin])
    package = sys.modules.get("diffusion_lab")
    if package and not Path(str(package.__file__)).is_relative_to(folder.resolve()):
        status = 3
    out.send((int(status), plugin.result()))


class Trial:
    """A process of `tested`."""

    def __init__(self, folder: Path, paths: Sequence[str], plugin: Watched | Hunted) -> None:
        self.folder = folder
        self.inside, out = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=tested, args=(folder, paths, plugin, out))
        self.process.start()
        out.close()

    def end(self) -> tuple[int, dict | str]:
        """Exit status and result; a negative status where the process died."""
        try:
            status, result = self.inside.recv()
        except EOFError:
            status, result = None, "no end in time"
        self.process.join()
        if status is None:
            status = min(-1, self.process.exitcode or -1)
            result = result if status == -signal.SIGALRM else f"died ({status})"
        return status, result


def copied(folder: Path) -> Path:
    """A copy of the package, its configuration and its tests in `folder`."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", "mutations")
    for name in ("diffusion_lab", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder.resolve()


def fingerprint(*files: Path) -> str:
    """Of the text of files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


def of_tests(root: Path) -> dict[str, str]:
    """A fingerprint of each file of tests, together with all that tests import."""
    files = [file for folder in TESTS for file in (root / folder).rglob("*.py")]
    shared = [file for file in files if not file.name.startswith("test_")]
    return {str(f.relative_to(root)): fingerprint(f, *shared) for f in files if f not in shared}


def kept(path: Path) -> dict:
    """What an earlier run on the same package found; the survivors are tried again."""
    package = fingerprint(*(PACKAGE / file for file in trees()))
    old = json.loads(path.read_text()) if path.exists() else {}
    return old if old.get("package") == package else {**NOTHING, "package": package}


class Check:
    """One run of all mistakes."""

    def __init__(self, wanted: Sequence[Mutant], tests: Sequence[str], path: Path | None) -> None:
        self.tests, self.path = list(tests), path
        self.state = copy.deepcopy(NOTHING) if path is None else kept(path)
        self.caught: dict[str, str] = self.state["caught"]
        self.wanted = list(wanted)
        self.survivors: list[Mutant] = []
        self.killers: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def keep(self) -> None:
        """Write what was found."""
        if self.path is not None:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps(self.state))

    def baseline(self, folder: Path) -> None:
        """Times and calls of all tests.

        Raises:
            RuntimeError: a test fails without any mistake.
        """
        state, now = self.state, of_tests(folder) if self.path else dict.fromkeys(self.tests, "")
        new = [file for file, print_ in now.items() if state["files"].get(file) != print_]
        status, found = Trial(folder, new, Watched(folder)).end() if new else (0, {})
        if status or not isinstance(found, dict):
            log = (folder / "log").read_text()[-4000:]
            raise RuntimeError(f"the tests fail without any mistake:\n{log}")
        for part in ("seconds", "calls"):
            same = set(now) - set(new)
            old = {name: v for name, v in state[part].items() if name.split("::")[0] in same}
            state[part] = {**old, **found.get(part, {})}
        state["files"] = now
        self.keep()
        self.seconds: dict[str, float] = state["seconds"]
        self.calls = {name: set(hits) for name, hits in state["calls"].items()}

    def order(self, mutant: Mutant) -> list[str]:
        """The tests that call the mutated function: killers first, then the quick ones."""
        name = mutant.name.removeprefix(Path(mutant.file).stem + ".")
        hits = {f"{mutant.file} {name}"}
        constants = [u for u in units() if u.name == mutant.name and hasattr(u.node, "targets")]
        if constants:  # every test that calls anything of a file that knows the constant
            known = set(re.findall(r"\w+", name))
            files = [f for f in trees() if known & set(re.findall(r"\w+", _text(f)))]
            hits = {hit for hits in self.calls.values() for hit in hits if hit.split()[0] in files}
        killers = self.killers[mutant.name]
        chosen = [test for test in self.seconds if hits & self.calls[test]]
        return sorted(chosen, key=lambda test: (-killers[test], self.seconds[test]))

    def phases(self, order: list[str]) -> Iterator[list[str]]:
        """The quick tests of numbers alone, then the rest: most mistakes need no library."""
        first = [t for t in order if t.startswith(self.tests[0])]
        yield from (part for part in (first, [t for t in order if t not in set(first)]) if part)

    def start(self, folder: Path, mutant: Mutant, order: list[str]) -> Trial:
        """Plant a mistake in a copy and try it."""
        path = folder / "diffusion_lab" / mutant.file
        self.texts[folder] = path, path.read_text()
        path.write_text(mutant.source)
        self.planted += 1
        os.utime(path, (self.planted, self.planted))  # no bytecode of another mistake fits
        files = sorted({test.split("::")[0] for test in order})
        return Trial(folder, files, Hunted(order, self.seconds))

    def restore(self, folder: Path) -> None:
        """The file as it was."""
        path, text = self.texts.pop(folder)
        path.write_text(text)

    def run(self, jobs: int) -> int:
        """Plant all mistakes and report; the exit status."""
        start, self.planted, self.texts = time.monotonic(), 0, {}
        for name in HEAVY:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for entry in entry_points(group="pytest11"):
            entry.load()
        gc.freeze()
        with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
            free = [copied(Path(temporary) / str(job)) for job in range(jobs)]
            self.baseline(free[0])
            print(f"the tests pass without a mistake ({time.monotonic() - start:.0f} s)")
            todo = [m for m in self.wanted if m.key not in self.caught]
            running: dict[Trial, tuple[Mutant, list[list[str]]]] = {}
            while todo or running:
                while todo and free:
                    mutant = todo.pop(0)
                    self.begin(running, free.pop(), mutant, list(self.phases(self.order(mutant))))
                for process in wait([trial.inside for trial in running]):
                    trial = next(t for t in running if t.inside is process)
                    mutant, phases = running.pop(trial)
                    status, found = trial.end()
                    self.restore(trial.folder)
                    if status in (3, 4):
                        raise RuntimeError((trial.folder / "log").read_text()[-4000:])
                    if status == 0 and phases:
                        self.begin(running, trial.folder, mutant, phases)
                        continue
                    free.append(trial.folder)
                    self.judge(mutant, status, str(found))
        return self.report(time.monotonic() - start)

    def begin(self, running: dict, folder: Path, mutant: Mutant, phases: list[list[str]]) -> None:
        """Try the next part of the tests; no test at all calls some functions."""
        if phases:
            running[self.start(folder, mutant, phases[0])] = mutant, phases[1:]
        else:
            self.texts[folder] = folder / "log", ""
            running[Trial(folder, ["--version"], Hunted([], {}))] = mutant, []

    def judge(self, mutant: Mutant, status: int, found: str) -> None:
        """Keep a verdict."""
        if status == 0:
            self.survivors.append(mutant)
            print(f"SURVIVED  {mutant.file}: {mutant.key}", flush=True)
            return
        self.killers[mutant.name][found] += 1
        self.caught[mutant.key] = found or "tests that are no longer there"
        self.keep()
        print(f"CAUGHT    {mutant.file}: {mutant.key}\n          by {found}", flush=True)

    def report(self, seconds: float) -> int:
        """The last lines, and the exit status."""
        count = len(self.wanted)
        print(f"\n{count - len(self.survivors)} of {count} caught ({seconds:.0f} s)")
        for mutant in sorted(self.survivors):
            print(f"survived: {mutant.file}: {mutant.key}")
        return 1 if self.survivors else 0


def _text(file: str) -> str:
    return (ROOT / "diffusion_lab" / file).read_text()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="those with a TEXT in file or name"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th mistake")
    parser.add_argument("--all", action="store_true", help="all that the operators make")
    parser.add_argument("--list", action="store_true", help="print the mistakes and do nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("--fresh", action="store_true", help="forget the verdicts of earlier runs")
    args = parser.parse_args()
    try:
        wanted = only(mutants(args.all), args.only)[:: args.every]
        if args.list:
            for mutant in wanted:
                print(f"{mutant.file}: {mutant.key}")
            return 0
        if not wanted:
            raise ValueError("no mistake has such a text in its file or name")
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        if args.fresh:
            KEPT.unlink(missing_ok=True)
        path = KEPT if tuple(args.tests) == TESTS else None
        return Check(wanted, args.tests, path).run(max(1, min(args.jobs, len(wanted))))
    except (ValueError, RuntimeError) as error:
        print(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""Remove the fsync calls of the packages one by one and require that a wrong state is found.

    python tests/power_cuts/remove_each_fsync.py            # every one of them
    python tests/power_cuts/remove_each_fsync.py --draw 3   # some, another choice every day

A call site is a call of fsync or syncfs in fleet_model/durable.py, or a call of one of that
module's functions anywhere: it is replaced by the same function without its syncs. Each removal is
made in a copy of the packages, and the scenarios that reach the call are run there, until one finds
a state that no power cut may leave. The same scenario must find none in the unchanged copy. A
scenario that fails in another way is an error. Calls that are not drawn must be reached, too.
"""

import argparse
import ast
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from run_scenarios import NOT_PERMITTED, SCENARIOS, WRONG

REPOSITORY = Path(__file__).parents[2]
RECORDER = "ros2_ws/src/edge_perception/edge_perception"
PACKAGES = "fleet_model", "edge_agent", "cloud_server", RECORDER
DURABLE = "fleet_model/durable.py"
SYNCS = "fsync", "fdatasync", "syncfs"  # os.sync is not used
# Call sites whose removal may go unnoticed, and why.
NEEDLESS = {
    "edge_agent/models/deploy.py:Models._restore:link_or_copy": (
        "the copy of an object: a torn one does not fit its digest, and is made again"
    ),
    "edge_agent/models/channels.py:Channels.go_back:point_durably": (
        "trials.json, written before, says that the version was given back; the next start does it"
    ),
    "edge_agent/training/feature_file.py:FeatureFile.compact:writing": (
        "rows that are torn do not fit their checksums, and are computed again"
    ),
    "cloud_server/monitoring/totals.py:RunningTotals._save:write_durably": (
        "a damaged file is found, and the sums are made again from the history"
    ),
    "cloud_server/sites/report.py:write_report:write_durably": (
        "numbers and a picture for people, made again from the checkpoint by whoever takes it up"
    ),
    "cloud_server/cli/token_commands.py:token_make:write_durably": (
        "a torn token of a kit admits nobody; another one is made"
    ),
    "edge_agent/robot/join_token.py:JoinToken.take:write_durably": (
        "a torn token is told, and enroll copies it again"
    ),
    "cloud_server/report/fleet.py:write_fleet_report:write_durably": (
        "a page for people, made again by the same command"
    ),
    "cloud_server/state/offers/rollout_files.py:RolloutFiles.remove:remove_durably": (
        "what offline keys have signed says that there is none; the next signing removes it again"
    ),
    "edge_agent/examples/texts/told.py:write_told:write_durably": (
        "what `status` tells of texts; a torn file tells nothing, and is written again"
    ),
    "cloud_server/models/bundle_folder.py:export_bundle:making_folder": (
        "a copy of what the store keeps, made again by the same command; `serve --pod` checks it"
    ),
    "cloud_server/cli/profiles/profile_commands.py:profiles_export:write_durably": (
        "a file for people, made again by the same command"
    ),
    "cloud_server/rehearsal/rehearse.py:rehearse.finished:write_durably": (
        "a simulation on one machine; one that was cut is done again in another directory"
    ),
    "cloud_server/rehearsal/rehearse.py:rehearse:write_durably": (
        "a simulation on one machine; one that was cut is done again in another directory"
    ),
    "cloud_server/pipelines/steps.py:working_folder:make_directory": (
        "the first step syncs the whole file system when its result gets its name"
    ),
    "cloud_server/kubeflow/local_run.py:run_here:making_folder": (
        "a pipeline on one machine; one that was cut is done again in another directory"
    ),
    "cloud_server/kubeflow/compiling.py:compile_pipeline:write_durably": (
        "a file for people, made again by the same command"
    ),
    "cloud_server/state/model_store.py:DirectoryStore.fetch:writing": (
        "robots fetch by HTTPS; from a directory do tests, and an export, which can be made again"
    ),
}
# The scenario that notices, where those before it in the list would take long.
FIRST = {"edge_agent/data/extraction/journal.py:Journal.sync:fsync": "extract-tfds"}
MOST = "200"  # states of a scenario; those at marks come first


class Site(NamedTuple):
    """One call that syncs."""

    file: str  # relative to the repository
    line: int
    function: str  # that it is in
    called: str
    begin: int  # of the callee's text in the file, in bytes
    end: int
    call_end: int

    @property
    def name(self) -> str:
        """Return what names the site as long as its function has its name."""
        return f"{self.file}:{self.function}:{self.called}"


def sites(repository: Path = REPOSITORY) -> list[Site]:
    """Return every call that syncs, in the order of the files."""
    functions = syncing_functions(repository)
    return [
        site
        for package in PACKAGES
        for path in sorted((repository / package).rglob("*.py"))
        for site in _sites_of(path, path.relative_to(repository).as_posix(), functions)
    ]


def syncing_functions(repository: Path = REPOSITORY) -> set[str]:
    """Return the functions of durable.py that sync, by themselves or by calling another one."""
    tree = ast.parse((repository / DURABLE).read_text())
    calls = {
        function.name: {_called(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }
    syncing: set[str] = set()
    for _ in calls:
        known = syncing.union(SYNCS)
        syncing |= {name for name, called in calls.items() if called & known}
    return syncing


def _sites_of(path: Path, file: str, functions: set[str]) -> Iterator[Site]:
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def visit(node: ast.AST, function: str) -> Iterator[Site]:
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            if isinstance(child, ast.Call):
                callee, called = child.func, _called(child.func)
                is_sync = isinstance(callee, ast.Attribute) and called in SYNCS
                if (is_sync and not child.keywords) or (
                    isinstance(callee, ast.Name) and called in functions
                ):
                    begin, end = _ends(callee, starts)
                    call_end = _ends(child, starts)[1]
                    yield Site(file, child.lineno, function, called, begin, end, call_end)
            yield from visit(child, inner)

    yield from visit(ast.parse(source), "")


def _ends(node: ast.expr, starts: list[int]) -> tuple[int, int]:
    """Return where a node begins and ends in the file, in bytes."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    begin = starts[node.lineno - 1] + node.col_offset
    return begin, starts[node.end_lineno - 1] + node.end_col_offset


def _called(callee: ast.expr) -> str:
    return getattr(callee, "id", "") or getattr(callee, "attr", "")


class Copy:
    """A copy of the packages and of these tests, in which one call is changed at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        ignore = shutil.ignore_patterns("__pycache__")
        for name in (*PACKAGES, "tests/power_cuts", "tests/data/tiny_bundle"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
        shutil.copy(REPOSITORY / "tests/bag_writer.py", folder / "tests")
        source = (folder / DURABLE).read_bytes()
        for site in reversed(sites(folder)):  # the module once more, without any sync
            if site.file == DURABLE and site.called in SYNCS:
                source = source[: site.begin] + b"0" + source[site.call_end :]
        (folder / "fleet_model/durable_unsynced.py").write_bytes(source)
        self._right: set[str] = set()  # scenarios that find nothing wrong in the unchanged copy

    def reached(self) -> dict[str, list[str]]:
        """Return site name -> the scenarios whose operation calls it."""
        notes = self._folder / "reached"
        before = {file: (self._folder / file).read_bytes() for file in {s.file for s in sites()}}
        for site in reversed(sites()):
            told = f'__import__("reached").told({site.name!r}, '.encode()
            path = self._folder / site.file
            source = path.read_bytes()
            callee = source[site.begin : site.end]
            path.write_bytes(source[: site.begin] + told + callee + b")" + source[site.end :])
        try:
            self.run(["--only-act"], REACHED=str(notes))
        finally:
            for file, source in before.items():
                (self._folder / file).write_bytes(source)
        found: dict[str, list[str]] = {}
        for line in sorted(set(notes.read_text().splitlines())):
            scenario, _, site_name = line.partition(" ")
            found.setdefault(site_name, []).append(scenario)
        order = list(SCENARIOS)
        return {
            name: sorted(of, key=lambda one: (one != FIRST.get(name), order.index(one)))
            for name, of in found.items()
        }

    def without(self, site: Site, scenarios: Sequence[str]) -> str:
        """Run scenarios without the call until one finds a wrong state; return its story, or ""."""
        path = self._folder / site.file
        source = path.read_bytes()
        if site.called in SYNCS:
            changed = source[: site.begin] + b"0" + source[site.call_end :]
        else:
            module = b'__import__("fleet_model.durable_unsynced", fromlist=["x"]).'
            changed = source[: site.begin] + module + source[site.begin :]
        assert len(changed) != len(source)  # else Python might use what it has compiled before
        path.write_bytes(changed)
        try:
            for name in scenarios:
                story = self._wrong_state(name)
                if story:
                    break
            else:
                return ""
        finally:
            path.write_bytes(source)
        if name not in self._right and (unchanged := self._wrong_state(name)):
            raise RuntimeError(f"{name} finds a wrong state in the unchanged copy:\n{unchanged}")
        self._right.add(name)
        return story

    def _wrong_state(self, scenario: str) -> str:
        """Return the story of a wrong state, "" if there is none."""
        story, code = self.run([scenario, "--most", MOST])
        if code == NOT_PERMITTED:
            sys.exit(NOT_PERMITTED)
        if code not in (0, WRONG):
            raise RuntimeError(f"{scenario} did not run:\n{story}")
        return story if code == WRONG else ""

    def run(self, arguments: Sequence[str], **environment: str) -> tuple[str, int]:
        """Run scenarios in the copy; return what was printed, and the exit code."""
        done = subprocess.run(
            [sys.executable, "tests/power_cuts/run_scenarios.py", *arguments],
            cwd=self._folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr, done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", type=int, help="so many, drawn, in place of all")
    parser.add_argument("--seed", default=str(datetime.date.today()))
    parser.add_argument("--only", default="", help="those whose name contains this")
    given = parser.parse_args()
    needed = [site for site in sites() if site.name not in NEEDLESS]
    chosen = [site for site in needed if given.only in site.name]
    if given.draw is not None:
        chosen = random.Random(given.seed).sample(chosen, given.draw)
        print(f"drawn with --seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="without-fsync-") as folder:
        copy = Copy(Path(folder))
        reached = copy.reached()
        # All, whatever is chosen: else a new call fails on the day on which it is drawn.
        unnoticed = [site for site in needed if site.name not in reached]
        for site in chosen:
            began = time.monotonic()
            story = copy.without(site, reached.get(site.name, ()))
            if not story and site not in unnoticed:
                unnoticed.append(site)
            told = story.splitlines()
            words = f"{told[0].split(':')[0]}: {told[-1][:150]}" if told else "UNNOTICED"
            print(
                f"{site.name} line {site.line}: {words} ({time.monotonic() - began:.1f} s)",
                flush=True,
            )
    for site in unnoticed:
        tried = ", ".join(reached.get(site.name, ())) or "none reaches it"
        print(f"unnoticed: {site.name} line {site.line}; scenarios: {tried}")
    return bool(unnoticed)


if __name__ == "__main__":
    sys.exit(main())

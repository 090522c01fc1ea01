"""Milliseconds of the console's pages with 1,000 robots and 500 runs, and with 10 robots.

A real server on loopback over TLS, one browser that keeps its connection. Each page is asked for
again and again, in turn; before each request the server's look at its state has become too old
(desk.FRESH_S), so every one is computed anew. `page_p95_ms` is over all requests of all pages,
`page_p95_ms_10` the same with 10 robots; `NAME_ms` is the median of one page. --quick: 60 robots,
30 runs, few requests.
"""

import re
import shutil
import ssl
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

import httpx

from benchmarks.console_fleet import make_fleet
from benchmarks.fleets import ROOT, OurFleet, free_port
from benchmarks.measure import Limit, Result, arguments, report, say
from benchmarks.services import Services
from cloud_server.console.desk import FRESH_S

WORK = ROOT / "build" / "bench" / "console"
MOST_MS = 100.0
PAGES: Mapping[str, str] = {
    "fleet": "/console",
    "fleet_page": "/console?page=2",
    "filter": "/console?q=robot-00&state=attention",
    "robot": "/console/robots/robot-0005",
    "runs": "/console/runs",
    "run": "/console/runs/{run}",
    "models": "/console/models",
    "version": "/console/models/20",
    "sites": "/console/sites",
    "confirm": "/console/do/run",
}


def main() -> None:
    """Measure both fleets, print it."""
    options = arguments(__doc__ or "", quick="60 robots, 30 runs, few requests")
    robots, runs, turns = (60, 30, 1) if options.quick else (1000, 500, 12)
    many, few = measure("many", robots, runs, turns), measure("few", 10, runs, turns)
    figures = {"page_p95_ms": p95(many), "page_p95_ms_10": p95(few)}
    figures |= {f"{name}_ms": statistics.median(times) for name, times in many.items()}
    limits = [Limit("page_p95_ms", MOST_MS)]
    report(Result(benchmark="console", comparisons=(), figures=figures, limits=limits),
           as_json=options.json)  # fmt: skip


def measure(name: str, robots: int, runs: int, turns: int) -> Mapping[str, Sequence[float]]:
    """Return page -> milliseconds of each request."""
    say(f"a server with {robots} robots and {runs} runs")
    root = WORK / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    make_fleet(root / "server", free_port(), robots, runs)
    with Services(root / "logs") as services:
        fleet = OurFleet.start(services, root / "server", {})
        with closing(logged_in(fleet)) as browser:
            return ask(browser, turns)


def logged_in(fleet: OurFleet) -> httpx.Client:
    """Return a browser that has followed a link."""
    link = fleet.admin.console_link()
    base = link.partition("/console")[0]
    context = ssl.create_default_context(cafile=str(fleet.server_dir.certificates / "ca.crt"))
    browser = httpx.Client(base_url=base, verify=context, timeout=60, trust_env=False)
    code = link.partition("code=")[2]
    browser.post("/console/login", data={"code": code}, headers={"origin": base})
    return browser


def ask(browser: httpx.Client, turns: int) -> dict[str, list[float]]:
    """Ask for every page in turn; the first turn, which fills caches, does not count."""
    found = re.search(r'/console/runs/([0-9b-]+)"', browser.get("/console/runs").text)
    if found is None:
        raise RuntimeError("the console shows no run")
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    for turn in range(turns + 1):
        for name, path in PAGES.items():
            time.sleep(1.05 * FRESH_S)
            begin = time.perf_counter()
            answer = browser.get(path.format(run=found[1]))
            took_ms = 1000 * (time.perf_counter() - begin)
            answer.raise_for_status()
            if turn:
                times[name].append(took_ms)
    return times


def p95(times: Mapping[str, Sequence[float]]) -> float:
    """Return the 95th percentile over all pages."""
    every = sorted(value for of in times.values() for value in of)
    return every[min(len(every) - 1, int(0.95 * len(every)))]


if __name__ == "__main__":
    main()

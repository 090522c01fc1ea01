"""The parts of a report that every fleet has: rounds, costs, versions, and the page around them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from cloud_server.report import charts
from cloud_server.report.markup import (
    STYLE,
    Html,
    decimal,
    el,
    figure,
    folded,
    join,
    line_key,
    percent,
    section,
    size,
    table,
    whole,
)
from cloud_server.report.results import Results, mean
from fleet_model.protocol.trial import BACK, CONFIRMED, PROBATION, REFUSED

_MOST_MISSING = 20  # outcomes that are told beside the chart; the table has all
# What became of a model on a robot -> how it is told, the best first.
_BECAME = {
    CONFIRMED: "confirmed", PROBATION: "on probation", BACK: "given back", REFUSED: "refused",
}  # fmt: skip
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, hero: Html, *sections: Html) -> bytes:
    """Return the whole page."""
    head = el(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    body = el("body", hero, el("main", *sections))
    return join((Html("<!doctype html>\n"), el("html", head, body, lang="en"), "\n")).encode()


def card(name: str, value: str, about: str) -> Html:
    """Return one number with its name."""
    return el(
        "div", el("h3", name), el("p", value, class_="big"), el("p", about, class_="soft"),
        class_="card",
    )  # fmt: skip


def measured(name: str, value: float | None, digits: int = 0) -> str:
    """Return a measure as people read it; an accuracy in percent with so many digits."""
    return percent(value, digits) if name.startswith("accuracy") else decimal(value, 2)


def curves_section(results: Results, most: int = 100) -> Html:
    """Draw every measure over the rounds; lines of at most so many robots, and the mean of all."""
    names = list(dict.fromkeys(r.name for closed in results.history for r in closed.robots))[:most]
    styles = _styles(results)
    keys = [line_key(styles.get(name, "s3"), name) for name in names]
    moments = ("before", "as the round starts"), ("after", "after training on the robot")
    figures = [
        figure(f"{metric.capitalize()} {meaning}", _curve(results, f"{metric}_{moment}", names))
        for metric in results.measures
        for moment, meaning in moments
    ]
    head = ["Round", "Robot", "Outcome"]
    head += [word for name in results.measures for word in (name.capitalize(), "after")]
    head.append("Held out")
    metrics = [f"{name}_{moment}" for name in results.measures for moment in ("before", "after")]
    rows = []
    for closed in results.history:
        for reply in closed.robots:
            shares = [decimal(reply.metrics.get(name), 3) for name in metrics]
            held_out = decimal(reply.metrics.get("held_out"), 0)
            rows.append((str(closed.round), reply.name, reply.outcome, *shares, held_out))
    missing = [f"Round {row[0]}, {row[1]}: {row[2]}." for row in rows if row[2] != "accepted"]
    if len(missing) > _MOST_MISSING:
        missing = [f"{len(missing) - _MOST_MISSING} earlier ones.", *missing[-_MOST_MISSING:]]
    return section(
        "Round by round",
        "The shared model on each robot's own held-out examples, which no training touches: as the "
        "round starts, and after the robot trained it further on its own. One line per robot, "
        "colored by site.",
        el("ul", *keys, line_key("mean", "fleet mean"), class_="legend"),
        el("div", *figures, class_="grid"),
        el("p", " ".join(missing), class_="note") if missing else "",
        folded(table(head, rows)),
    )


def _curve(results: Results, field: str, names: Sequence[str]) -> Html:
    styles = _styles(results)
    lines = [
        charts.Line(name, [c.metric(field, name) for c in results.history], styles.get(name, "s3"))
        for name in names
    ]
    fleet = [closed.metrics.get(field) for closed in results.history]
    lines.insert(0, charts.Line("fleet mean", fleet, "mean"))  # below the others
    rounds = [str(closed.round) for closed in results.history]
    if field.startswith("accuracy"):
        return charts.line_chart(field, rounds, lines, 1, percent)
    measure = field.rpartition("_")[0]
    losses = [
        reply.metrics.get(f"{measure}_{moment}", 0)
        for closed in results.history
        for reply in closed.robots
        for moment in ("before", "after")
    ]
    top = charts.round_up(max(losses, default=1))  # of both moments: they stand side by side
    return charts.line_chart(field, rounds, lines, top, "{:.2f}".format)


def costs_section(results: Results) -> Html:
    """Show what each robot reports of itself."""
    measure = results.measures[0]
    head = (
        "Robot", "Examples", f"{measure.capitalize()} before", "after", "Bytes up per round",
        "Bytes down per publish", "Seconds, first round", "later rounds", "Memory idle, MB",
        "peak, MB", "Active version", "TensorFlow loaded",
    )  # fmt: skip
    rows = []
    for robot in results.summary.robots:
        replies = [r for closed in results.history for r in closed.robots if r.name == robot.name]
        seconds = [reply.seconds for reply in replies]
        rows.append(
            (
                robot.name,
                whole(robot.examples),
                measured(measure, robot.accuracy_before, 1),
                measured(measure, robot.accuracy_after, 1),
                size(robot.bytes_up_per_round),
                size(robot.bytes_down_per_publish),
                decimal(next(iter(seconds), None), 1),
                decimal(mean(seconds[1:]), 1),
                decimal(robot.idle_mb, 0),
                decimal(robot.peak_rss_mb, 0),
                whole(robot.active_version),
                {None: "-", True: "yes", False: "no"}[robot.framework_loaded],
            )
        )
    return section(
        "What it cost a robot",
        f"As the robots report it. {measure.capitalize()} is that of the first and the published "
        "model on the robot's own examples, held-out ones where it trains. Seconds are those of "
        "reading them and training.",
        el("div", table(head, rows), class_="card"),
    )


def trials_section(results: Results, about: Mapping[int, str] | None = None) -> Html:
    """Show what robots made of the versions that they tried; `about` says more of some."""
    robots = results.summary.robots
    tried = [(robot, trial) for robot in robots for trial in robot.trials]
    figures = []
    for version in sorted({trial.version for _, trial in tried}):
        of = [(robot, trial) for robot, trial in tried if trial.version == version]
        states = Counter(_BECAME.get(trial.state, trial.state) for _, trial in of)
        order = sorted(states, key=[*_BECAME.values(), *states].index)
        told = ", ".join(f"{word} by {states[word]} of {len(robots)} robots" for word in order)
        rows = [
            (
                robot.name,
                whole(robot.active_version),
                _BECAME.get(trial.state, trial.state),
                trial.told or "-",
            )
            for robot, trial in of
        ]
        words = (about or {}).get(version)
        note = [el("p", words, class_="soft note")] if words else []
        grid = table(("Robot", "Runs version", "Outcome", "On its own examples"), rows)
        figures.append(figure(f"Version {version}: {told}", *note, grid))
    if not figures:
        return Html("")
    return section(
        "Robots try a model before they trust it",
        "A new model runs beside the one in use, on the robot's own held-out examples: before the "
        "switch, and again after it. What is worse is refused or given back, and the robot keeps "
        "what it had. Robots send kinds and numbers, never examples.",
        el("div", *figures, class_="stack words"),
    )


def signatures_section(results: Results) -> Html:
    """Show which version is signed by whom; nothing where nothing is signed."""
    signed = results.summary.signatures
    if not signed:
        return Html("")
    rows = [
        (
            str(one.version),
            one.channel,
            one.key,
            one.role,
            f"{datetime.fromtimestamp(one.at, timezone.utc):%Y-%m-%d %H:%M:%S}",
        )
        for one in signed
    ]
    grid = table(("Version", "Channel", "Key", "Role", "Signed (UTC)"), rows)
    return section(
        "Who signed what",
        "Robots install only what is signed for their channel, by the keys of their kit or those "
        "that followed them. The role online is the server's own key; a role with the name of a "
        "channel is a key that a person keeps.",
        el("div", grid, class_="card"),
    )


def about_section(results: Results) -> Html:
    """Show versions."""
    items = [
        el("div", el("dt", name.replace("_", " ")), el("dd", str(value)))
        for name, value in results.about.items()
    ]
    return section("Versions", "", el("dl", *items, class_="card about"))


def running(results: Results) -> str:
    """Return how many robots run the published version."""
    known = results.running is not None
    return f"{results.running} of {len(results.summary.robots)}" if known else "-"


def _styles(results: Results) -> dict[str, str]:
    """Robot -> classes: its site's color, and dashes that tell robots of one site apart."""
    return {
        name: f"s{site % 4} d{rank % 4}"
        for site, names in enumerate(results.sites.values())
        for rank, name in enumerate(names)
    }


def by_site(results: Results, marks: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Site -> (robot, its site's color and its mark), for the robots that `marks` names."""
    sites = {
        site: [(name, f"s{rank % 4}{marks[name]}") for name in names if name in marks]
        for rank, (site, names) in enumerate(results.sites.items())
    }
    return {site: robots for site, robots in sites.items() if robots}

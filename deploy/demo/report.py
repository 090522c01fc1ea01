"""Write what the demo measured as one HTML page that needs no network, script or other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import charts
from markup import (
    STYLE,
    Html,
    box_key,
    decimal,
    el,
    figure,
    folded,
    in_words,
    join,
    line_key,
    percent,
    section,
    size,
    table,
    whole,
)  # fmt: skip
from report_data import Results, mean, parse_results
from unseen_robots import MODELS, accuracy_section, frames_section

from fleet_model.durable import write_durably

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(data: Mapping[str, Any], frames_dir: Path, path: Path) -> None:
    """Write the page; its pictures are frames_dir/<robot>/<..>_<stamp_ns>.jpg or .png.

    Raises:
        pydantic.ValidationError: a field has another type than the demo's.
    """
    results = parse_results(data)
    head = el(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("title", "fleetlearn: what the fleet learned"),
        Html(f"<style>{STYLE}</style>"),
    )
    body = el(
        "body",
        _hero(results),
        el(
            "main",
            _story(results),
            _curves(results),
            _skew(results),
            accuracy_section(results),
            frames_section(results, frames_dir),
            _costs(results),
            _commands(results),
            _about(results),
        ),
    )
    write_durably(path, join((Html("<!doctype html>\n"), el("html", head, body, lang="en"), "\n")))


def _hero(results: Results) -> Html:
    unseen = results.summary.unseen
    values = unseen.accuracy_before, unseen.single_robot_mean, unseen.accuracy_after
    scale = []
    for rank, (name, value) in enumerate(zip(MODELS, values, strict=True)):
        bar = el("i", class_=f"k{rank}", style=f"width: {100 * (value or 0):.1f}%")
        scale += [el("span", name), el("span", bar), el("b", percent(value))]
    change = el("p", percent(values[0]), el("i", " → "), el("b", percent(values[2])), class_="big")
    name = f"Accuracy on {in_words(len(unseen.robots))} robots that never trained"
    accuracy = (el("h3", name), change, el("div", *scale, class_="scale"))
    version = whole(results.summary.published_version)
    tiles = (
        (
            "Robots on the published version",
            _running(results),
            f"version {version}, verified before use",
        ),
        ("Sent per robot and round", size(results.bytes_up), "how its weights changed, no more"),
        ("Frames of a training robot", size(results.bytes_kept), "frames never left the robots"),
    )
    cards = [
        el("div", el("h3", n), el("p", v, class_="big"), el("p", t, class_="soft"), class_="card")
        for n, v, t in tiles
    ]
    title = (
        f"{in_words(len(results.training)).capitalize()} robots trained. "
        f"{in_words(results.running).capitalize()} run the model. No frame left a robot."
    )
    grid = el("div", el("div", *accuracy, class_="card tall"), *cards, class_="grid")
    kicker = el("p", "fleetlearn demo", class_="kicker")
    return el("header", el("div", kicker, el("h1", title), grid), class_="hero")


def _story(results: Results) -> Html:
    summary, unseen = results.summary, results.summary.unseen
    version, up = whole(summary.published_version), size(results.bytes_up)
    sites = len({robot.site for robot in results.training})
    trained, unknown = in_words(len(results.training)), in_words(len(unseen.robots))
    text = (
        f"{trained.capitalize()} robots on {in_words(sites)} sites recorded what their cameras "
        f"saw. In each of {whole(summary.rounds)} rounds they trained the shared model on their "
        "own frames and sent the server only how its weights had changed. The server averaged the "
        f"changes and published the result as version {version}; "
        f"{_running(results)} robots have fetched and verified it and run it now. "
        f"{unknown.capitalize()} robots ({', '.join(unseen.robots) or '-'}) took no part in "
        "training: on their frames accuracy was "
        f"{percent(unseen.accuracy_before)} with the first model and is "
        f"{percent(unseen.accuracy_after)} with the published one. Models trained the same way on "
        f"one robot alone reach {percent(unseen.single_robot_mean)} there on average. A server and "
        f"{in_words(len(summary.robots))} robots, each a process of its own, took "
        f"{decimal(summary.seconds, 0)} seconds for all of this on one machine."
    )
    marks = dict.fromkeys(unseen.robots, " new")
    picture = charts.diagram(
        _by_site(results, {robot.name: "" for robot in results.training}),
        _by_site(results, {r.name: marks.get(r.name, "") for r in summary.robots}),
        f"{up} per robot",
        f"version {version}, {size(results.bytes_down)} per robot",
    )
    return section("What happened", "", el("div", el("p", text), picture, class_="card story"))


def _curves(results: Results) -> Html:
    names = list(dict.fromkeys(r.name for closed in results.history for r in closed.robots))
    styles = _styles(results)
    keys = [line_key(styles.get(name, "s3"), name) for name in names]
    moments = ("before", "as the round starts"), ("after", "after training on the robot")
    figures = [
        figure(f"{metric.capitalize()} {meaning}", _curve(results, f"{metric}_{moment}", names))
        for metric in ("accuracy", "loss")
        for moment, meaning in moments
    ]
    head = "Round", "Robot", "Outcome", "Accuracy", "after", "Loss", "after", "Held out"
    metrics = "accuracy_before", "accuracy_after", "loss_before", "loss_after"
    rows = []
    for closed in results.history:
        for reply in closed.robots:
            shares = [decimal(reply.metrics.get(name), 3) for name in metrics]
            held_out = decimal(reply.metrics.get("held_out"), 0)
            rows.append((str(closed.round), reply.name, reply.outcome, *shares, held_out))
    missing = [f"Round {row[0]}, {row[1]}: {row[2]}." for row in rows if row[2] != "accepted"]
    return section(
        "Round by round",
        "The shared model on each robot's own held-out frames, which no training touches: as the "
        "round starts, and after the robot trained it further on its own. One line per robot, "
        "coloured by site.",
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
    losses = [
        reply.metrics.get(f"loss_{moment}", 0)
        for closed in results.history
        for reply in closed.robots
        for moment in ("before", "after")
    ]
    top = charts.round_up(max(losses, default=1))  # of both moments: they stand side by side
    return charts.line_chart(field, rounds, lines, top, "{:.2f}".format)


def _skew(results: Results) -> Html:
    labels, counts = results.labels, results.label_counts
    keys = [box_key(f"l{rank % 8}", label) for rank, label in enumerate(labels)]
    rows = [
        (name, *(str(count.get(label, 0)) for label in labels), str(sum(count.values())))
        for name, count in counts.items()
    ]
    chart = charts.stacked_bars("Examples per robot and label", counts, labels)
    return section(
        "What each robot saw",
        "Every route shows other things. Examples per robot and label, held-out ones included.",
        el(
            "div",
            el("div", el("ul", *keys, class_="legend"), chart, class_="card"),
            el("div", table(("Robot", *labels, "Sum"), rows), class_="card"),
            class_="grid",
        ),
    )


def _costs(results: Results) -> Html:
    head = (
        "Robot", "Examples", "Accuracy before", "after", "Bytes up per round",
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
                percent(robot.accuracy_before, 1),
                percent(robot.accuracy_after, 1),
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
        "As the robots report it. Accuracy is that of the first and the published model on the "
        "robot's own frames, held-out ones where it trains. Seconds are those of reading frames "
        "and training.",
        el("div", table(head, rows), class_="card"),
    )


def _commands(results: Results) -> Html:
    lines: list[str] = [el("code", command) for command in results.commands]
    lead = "What the demo typed, and anyone can. A click selects a command."
    return section("Commands", lead, el("pre", *(lines or ["-"])))


def _about(results: Results) -> Html:
    items = [
        el("div", el("dt", name.replace("_", " ")), el("dd", str(value)))
        for name, value in results.about.items()
    ]
    return section("Versions", "", el("dl", *items, class_="card about"))


def _running(results: Results) -> str:
    known = results.running is not None
    return f"{results.running} of {len(results.summary.robots)}" if known else "-"


def _styles(results: Results) -> dict[str, str]:
    """Robot -> classes: its site's colour, and dashes that tell robots of one site apart."""
    return {
        name: f"s{site % 4} d{rank % 4}"
        for site, names in enumerate(results.sites.values())
        for rank, name in enumerate(names)
    }


def _by_site(results: Results, marks: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Site -> (robot, its site's colour and its mark), for the robots that `marks` names."""
    sites = {
        site: [(name, f"s{rank % 4}{marks[name]}") for name in names if name in marks]
        for rank, (site, names) in enumerate(results.sites.items())
    }
    return {site: robots for site, robots in sites.items() if robots}

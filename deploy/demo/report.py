"""Write what the demo measured as one HTML page that needs no network, script or other file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unseen_robots import MODELS, accuracy_section, frames_section

from cloud_server.report import charts
from cloud_server.report.markup import (
    Html,
    box_key,
    command_line,
    decimal,
    el,
    in_words,
    percent,
    section,
    size,
    table,
    whole,
)
from cloud_server.report.results import Results, parse_results
from cloud_server.report.sections import (
    about_section,
    by_site,
    card,
    costs_section,
    curves_section,
    page,
    running,
    signatures_section,
    trials_section,
)
from fleet_model.durable import write_durably
from fleet_model.protocol.trial import REFUSED


def write_report(data: Mapping[str, Any], frames_dir: Path, path: Path) -> None:
    """Write the page; its pictures are frames_dir/<robot>/<..>_<stamp_ns>.jpg or .png.

    Raises:
        pydantic.ValidationError: a field has another type than the demo's.
    """
    results = parse_results(data)
    content = page(
        "fleetlearn: what the fleet learned",
        _hero(results),
        _story(results),
        trials_section(results, _versions(results)),
        curves_section(results),
        _skew(results),
        accuracy_section(results),
        frames_section(results, frames_dir),
        costs_section(results),
        signatures_section(results),
        commands_section(results),
        about_section(results),
    )
    write_durably(path, content)


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
            running(results),
            f"version {version}, tried on their own frames",
        ),
        ("Sent per robot and round", size(results.bytes_up), "how its weights changed, no more"),
        ("Frames of a training robot", size(results.bytes_kept), "frames never left the robots"),
    )
    cards = [card(*tile) for tile in tiles]
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
        f"{running(results)} robots have fetched and tried it and run it now. "
        f"{unknown.capitalize()} robots ({', '.join(unseen.robots) or '-'}) took no part in "
        "training: on their frames accuracy was "
        f"{percent(unseen.accuracy_before)} with the first model and is "
        f"{percent(unseen.accuracy_after)} with the published one. Models trained the same way on "
        f"one robot alone reach {percent(unseen.single_robot_mean)} there on average. "
        f"{_refusal(results)}A server and "
        f"{in_words(len(summary.robots))} robots, each a process of its own, took "
        f"{decimal(summary.seconds, 0)} seconds for all of this on one machine. The cameras are "
        "simulated: shapes on stock photographs, seen from a moving robot. The command "
        "cloud-server report makes such a page of your own robots."
    )
    marks = dict.fromkeys(unseen.robots, " new")
    picture = charts.diagram(
        by_site(results, {robot.name: "" for robot in results.training}),
        by_site(results, {r.name: marks.get(r.name, "") for r in summary.robots}),
        f"{up} per robot",
        f"version {version}, {size(results.bytes_down)}",
    )
    return section("What happened", "", el("div", el("p", text), picture, class_="card story"))


def _refusal(results: Results) -> str:
    """Say who refused the planted model; "" if none was planted."""
    robots, planted = results.summary.robots, results.summary.planted_version
    if planted is None:
        return ""
    said_no = [r for r in robots if (planted, REFUSED) in [(t.version, t.state) for t in r.trials]]
    return (
        f"Then a bad model was published on purpose as version {planted}: {len(said_no)} of "
        f"{len(robots)} robots refused it by their own frames. "
    )


def _versions(results: Results) -> dict[int, str]:
    """Say where the versions come from that robots tried."""
    published, planted = results.summary.published_version, results.summary.planted_version
    about = {
        published: "What the rounds made. Robots try it before they switch, and again after it.",
        planted: "Planted: the same weights with the labels in another order, published by command "
        "past the server's gate, as a careless person would.",
    }
    return {version: words for version, words in about.items() if version is not None}


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


def commands_section(results: Results) -> Html:
    """Show what was typed."""
    lines: list[str] = [command_line(command) for command in results.commands]
    lead = "What the demo typed, with the paths of this machine. A click selects a command."
    return section("Commands", lead, el("pre", *(lines or ["-"])))

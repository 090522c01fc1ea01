"""Write what the demo of boxes measured as one HTML page that needs no network, script or file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from report import commands_section

from cloud_server.report import charts
from cloud_server.report.markup import (
    Html,
    box_key,
    decimal,
    el,
    figure,
    in_words,
    section,
    size,
    table,
    whole,
)
from cloud_server.report.results import Part, Results, parse_results
from cloud_server.report.sections import (
    about_section,
    by_site,
    card,
    curves_section,
    page,
    running,
    signatures_section,
    trials_section,
)
from fleet_model.durable import write_durably

MOMENTS = "before", "after"  # training
STYLES = 0, 2  # of their bars
# What `edge-agent predict --annotate` draws, and what it means (edge_agent/data/box_drawing.py).
COLORS = {"#1a7f50": "right", "#c93c30": "wrong", "#b07000": "missed"}
_PAIRS = 2  # of each robot; a picture has 40 kB


class Class(Part):
    """How well one class is found; the mean of the unseen robots that meet it."""

    boxes: int | None = None
    ap50_before: float | None = None
    ap50_after: float | None = None


class Unseen(Part):
    """What the model is worth on the robots that never train."""

    robots: tuple[str, ...] = ()
    map50_before: float | None = None
    map50_after: float | None = None


class Found(Part):
    """What is measured of boxes."""

    unseen: Unseen = Unseen()
    classes: Mapping[str, Class] = Field(default_factory=dict)


def write_report(data: Mapping[str, Any], frames_dir: Path, path: Path) -> None:
    """Write the page; its pictures are frames_dir/<before or after>/<robot>/<..>_<stamp_ns>.jpg.

    Args:
        data: of `detection_summary.collect`.
        frames_dir: of `edge-agent predict --annotate`.
        path: of the page.

    Raises:
        pydantic.ValidationError: a field has another type than the demo's.
    """
    summary = data.get("summary", {})
    rows = [
        {**row, "accuracy_before": row["map50_before"], "accuracy_after": row["map50_after"]}
        for row in summary.get("robots", ())
    ]
    results = parse_results({**data, "summary": {**summary, "robots": rows}})
    found = Found.model_validate(summary)
    stamps = data.get("frames_with_boxes", {})
    content = page(
        "fleetlearn: where things are",
        _hero(results, found.unseen),
        _story(results, found),
        _robots_section(results),
        _classes_section(found),
        _frames_section(found.unseen.robots, stamps, frames_dir),
        curves_section(results),
        trials_section(results),
        signatures_section(results),
        commands_section(results),
        about_section(results),
    )
    write_durably(path, content)


def _hero(results: Results, unseen: Unseen) -> Html:
    values = unseen.map50_before, unseen.map50_after
    scale = []
    for style, name, value in zip(STYLES, MOMENTS, values, strict=True):
        bar = el("i", class_=f"k{style}", style=f"width: {100 * (value or 0):.1f}%")
        scale += [el("span", f"{name} training"), el("span", bar), el("b", decimal(value, 2))]
    first, last = (decimal(value, 2) for value in values)
    found = (
        el("h3", f"mAP@.5 on {in_words(len(unseen.robots))} robots that never trained"),
        el("p", first, el("i", " → "), el("b", last), class_="big"),
        el("div", *scale, class_="scale"),
        el("p", "1 is every box found and none wrong.", class_="soft"),
    )
    version = whole(results.summary.published_version)
    tiles = (
        (
            "Robots on the published version",
            running(results),
            f"version {version}, tried on their own frames",
        ),
        ("Sent per robot and round", size(results.bytes_up), "how its weights changed, in int8"),
        ("Frames of a training robot", size(results.bytes_kept), "frames never left the robots"),
    )
    title = (
        f"{in_words(len(results.training)).capitalize()} robots learned where things are. "
        f"{in_words(results.running).capitalize()} know it. No frame left a robot."
    )
    cards = [card(*tile) for tile in tiles]
    grid = el("div", el("div", *found, class_="card tall"), *cards, class_="grid")
    kicker = el("p", "fleetlearn demo of boxes", class_="kicker")
    return el("header", el("div", kicker, el("h1", title), grid), class_="hero")


def _story(results: Results, found: Found) -> Html:
    summary, unseen = results.summary, found.unseen
    version, up = whole(summary.published_version), size(results.bytes_up)
    trained = len(results.training)
    sites = len({robot.site for robot in results.training})
    examples = results.training[0].examples if results.training else None
    text = (
        f"{in_words(trained).capitalize()} robots on {in_words(sites)} sites drove through rooms "
        f"in which toys of {in_words(len(found.classes))} classes lie. Each has about "
        f"{whole(examples)} frames with boxes to learn from. In each of {whole(summary.rounds)} "
        "rounds they trained the shared detector on them and sent the server only how its "
        f"weights had changed, {up} a robot. The server published the result as version "
        f"{version}; {running(results)} robots have fetched and tried it and run it now. "
        f"{in_words(len(unseen.robots)).capitalize()} robots ({', '.join(unseen.robots) or '-'}) "
        "on other sites took no part in training: mean average precision at an overlap of .5 is "
        f"{decimal(unseen.map50_before, 2)} there with the first model and "
        f"{decimal(unseen.map50_after, 2)} with the published one. A server and "
        f"{in_words(len(summary.robots))} robots, each a process of its own, took "
        f"{decimal(summary.seconds, 0)} seconds for all of this on one machine. So few frames and "
        "rounds teach a little; more of both teach more. The rooms are rendered. The command "
        "cloud-server report makes a page of your own robots."
    )
    picture = charts.diagram(
        by_site(results, {robot.name: "" for robot in results.training}),
        by_site(results, {r.name: "" if r.trains else " new" for r in summary.robots}),
        f"{up} per robot",
        f"version {version}, {size(results.bytes_down)}",
    )
    return section("What happened", "", el("div", el("p", text), picture, class_="card story"))


def _robots_section(results: Results) -> Html:
    robots = results.summary.robots
    head = (
        "Robot", "Trains on", "Before", "After", "Up a round", "Down a publish", "MB idle",
        "MB peak", "Version", "TensorFlow",
    )  # fmt: skip
    rows = [
        (
            robot.name,
            f"{whole(robot.examples)} frames" if robot.trains else "-",
            decimal(robot.accuracy_before, 2),
            decimal(robot.accuracy_after, 2),
            size(robot.bytes_up_per_round) if robot.trains else "-",
            size(robot.bytes_down_per_publish),
            decimal(robot.idle_mb, 0),
            decimal(robot.peak_rss_mb, 0),
            whole(robot.active_version),
            {None: "-", True: "yes", False: "no"}[robot.framework_loaded],
        )
        for robot in robots
    ]
    charted = []
    for title, trains in (("Never trained, all frames", False), ("Train, held-out frames", True)):
        bars = {
            robot.name: dict(
                zip(MOMENTS, (robot.accuracy_before, robot.accuracy_after), strict=True)
            )
            for robot in robots
            if robot.trains == trains
        }
        charted.append(figure(title, _keys(), _bars(f"map50, {title}", bars)))
    return section(
        "Robot by robot",
        "mAP@.5. Robots that never train measure the first and the published model on all of "
        "their frames. Those that train measure the shared model on frames that no training "
        "touches, as the first and as the last round begins; these are few, and of rare classes "
        "neighbors of those trained on.",
        el("div", *charted, class_="grid"),
        el("div", table(head, rows), class_="card"),
    )


def _classes_section(found: Found) -> Html:
    bars = {
        name: dict(zip(MOMENTS, (one.ap50_before, one.ap50_after), strict=True))
        for name, one in found.classes.items()
    }
    rows = [
        (name, whole(one.boxes), decimal(one.ap50_before, 3), decimal(one.ap50_after, 3))
        for name, one in found.classes.items()
    ]
    return section(
        "Class by class",
        "Average precision at an overlap of .5, the mean of the robots that never train "
        "and meet the class.",
        el(
            "div",
            figure("Average precision", _keys(), _bars("Average precision of each class", bars)),
            figure("In numbers", table(("Class", "True boxes", "Before", "After"), rows)),
            class_="grid",
        ),
    )


def _keys() -> Html:
    keys = [box_key(f"b{s}", f"{m} training") for s, m in zip(STYLES, MOMENTS, strict=True)]
    return el("ul", *keys, class_="legend")


def _bars(title: str, rows: Mapping[str, Mapping[str, float | None]]) -> Html:
    return charts.grouped_bars(title, rows, shown=lambda v: decimal(v, 2), styles=STYLES)


def _frames_section(
    robots: Sequence[str], stamps: Mapping[str, Sequence[int]], frames_dir: Path
) -> Html:
    """Show the same frames with what the first and with what the published model finds."""
    pairs = []
    for robot in robots:
        wanted = set(stamps.get(robot, ()))
        drawn = [_pictures(frames_dir / moment / robot) for moment in MOMENTS]
        both = sorted(wanted & drawn[0].keys() & drawn[1].keys())
        count = min(_PAIRS, len(both))
        for index in range(count):
            stamp_ns = both[(2 * index + 1) * len(both) // (2 * count)]
            pairs.append(_pair(robot, [pictures[stamp_ns] for pictures in drawn]))
    keys = []
    for color, meaning in COLORS.items():
        box = el("rect", width=12, height=12, rx=2, fill=color)
        drawn_key = el("svg", box, width=12, height=12, aria_hidden="true")
        keys.append(el("li", drawn_key, meaning))
    return section(
        "What they see",
        "Frames of robots that never trained, spread evenly over each drive, among those in which "
        "something is to be found. Drawn are boxes with a score of 0.3 or more; one is right if "
        "it has the label of a true box and an overlap of at least .5 with it.",
        el("ul", *keys, class_="legend"),
        el("div", *pairs, class_="pairs") if pairs else el("p", "-"),
    )


def _pair(robot: str, pictures: Sequence[Path]) -> Html:
    shown = []
    for moment, picture in zip(MOMENTS, pictures, strict=True):
        data = b64encode(picture.read_bytes()).decode()
        alt = f"A frame of {robot} with the boxes that the model found {moment} training"
        image = el("img", src=f"data:image/jpeg;base64,{data}", alt=alt)
        shown.append(el("div", el("p", f"{moment} training", class_="soft"), image))
    return figure(robot, el("div", *shown, class_="pair"))


def _pictures(folder: Path) -> dict[int, Path]:
    """Return when a frame was taken -> its picture."""
    names = {path: path.stem.rpartition("_")[2] for path in folder.glob("*.jpg")}
    return {int(digits): path for path, digits in names.items() if digits.isdecimal()}

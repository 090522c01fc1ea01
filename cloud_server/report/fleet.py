"""The report of one's own fleet: from its server directory, whether the server runs or not."""

from itertools import islice
from pathlib import Path

from cloud_server.report import charts
from cloud_server.report.markup import Html, el, in_words, section, size, whole
from cloud_server.report.results import (
    Reply,
    Results,
    Robot,
    Round,
    SignedBy,
    Summary,
    mean,
    measures_of,
)
from cloud_server.report.sections import (
    about_section,
    by_site,
    card,
    costs_section,
    curves_section,
    measured,
    page,
    running,
    signatures_section,
    trials_section,
)
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.signing.signed_by import Signature, signatures
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import newest_lines
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import load_settings
from fleet_model import __version__
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import utc_now

ROUNDS = 200  # the newest: a page of thousands is drawn by no browser
SIGNATURES = 50  # the newest
ROBOTS = 24  # lines in a chart that one can still tell apart; the fleet's mean is of all


def write_fleet_report(server_dir: ServerDirectory, path: Path) -> int:
    """Write the page; return how many rounds it shows.

    Args:
        server_dir: with the lineage that is meant.
        path: is replaced in one step.

    Raises:
        SettingsError: no round has closed yet, or the register is damaged.
        BundleError: the store is damaged.
    """
    records = _records(server_dir)
    if not records:
        raise SettingsError(
            f"{server_dir.root}: no round has closed yet; "
            f"`cloud-server train {server_dir.root}` closes some"
        )
    results = _results(server_dir, records)
    warnings = records[-1].warnings
    write_durably(
        path,
        page(
            "fleetlearn: what this fleet has learned",
            _hero(results),
            _story(results),
            section(
                "Doubtful scores",
                "What the robots told of their examples in the newest round.",
                el("div", *(el("p", f"{words}.") for words in warnings), class_="card"),
            )
            if warnings
            else Html(""),
            trials_section(results),
            curves_section(results, ROBOTS),
            costs_section(results),
            signatures_section(results),
            about_section(results),
        ),
    )
    return len(records)


def _records(server_dir: ServerDirectory) -> list[RoundRecord]:
    found = (line.record() for line in newest_lines(server_dir.history))
    newest = list(islice((one for one in found if one is not None), ROUNDS))
    return newest[::-1]


def _results(server_dir: ServerDirectory, records: list[RoundRecord]) -> Results:
    settings = load_settings(server_dir.settings)
    channel = server_dir.lineage or settings.publish.channel
    store, seen = DirectoryStore(server_dir.store), LastSeen(server_dir.seen)
    rounds = tuple(
        Round(
            round=record.version,
            metrics=dict(record.metrics),
            robots=tuple(
                Reply(name=one.name, outcome=one.outcome.text, metrics=dict(one.metrics))
                for one in record.robots
            ),
        )
        for record in records
    )
    first = measures_of(rounds)[0]
    robots = []
    for one in Register(server_dir.robots).robots():
        if one.state == "revoked":
            continue
        mine = [r for record in records for r in record.robots if r.name == one.name and r.accepted]
        last = mine[-1].metrics if mine else {}
        now = seen.of(one.name)
        trial = now.report.trial if now and now.report else None
        robots.append(
            Robot(
                name=one.name,
                site=one.site,
                trains=bool(mine),
                examples=mine[-1].num_examples if mine else None,
                accuracy_before=mine[0].metrics.get(f"{first}_before") if mine else None,
                accuracy_after=last.get(f"{first}_after"),
                active_version=now.active_version if now else None,
                peak_rss_mb=last.get("peak_child_mb"),
                bytes_up_per_round=mean(float(r.update_bytes) for r in mine),
                framework_loaded=bool(last["framework_loaded"])
                if "framework_loaded" in last
                else None,
                trials=(trial,) if trial else (),
            )
        )
    manifest = store.latest(channel)
    about: dict[str, str | int | float] = {
        "fleetlearn": __version__,
        "date": f"{utc_now():%Y-%m-%d %H:%M} UTC",
        "channel": channel,
        "rounds shown": len(records),
    }
    if manifest is not None:
        task = manifest.manifest.described_task
        about |= {
            "workload": manifest.manifest.workload.name,
            "published": manifest.manifest.version,
        }
        about |= {"labels": ", ".join(task.classes)} if task.classes else {}
    return Results(
        summary=Summary(
            rounds=len(records),
            robots=tuple(robots),
            published_version=None if manifest is None else manifest.manifest.version,
            signatures=tuple(
                SignedBy.model_validate(one.model_dump())
                for one in sorted(_signed(server_dir), key=lambda one: one.at)[-SIGNATURES:]
            ),
        ),
        history=rounds,
        about=about,
    )


def _signed(server_dir: ServerDirectory) -> list[Signature]:
    return [one for of in signatures(server_dir).values() for one in of]


def _hero(results: Results) -> Html:
    name = results.measures[0]
    first, last = (
        next((v for c in rounds if (v := c.metrics.get(f"{name}_{moment}")) is not None), None)
        for rounds, moment in ((results.history, "before"), (results.history[::-1], "after"))
    )
    change = el(
        "p", measured(name, first), el("i", " → "), el("b", measured(name, last)), class_="big"
    )
    rounds = len(results.history)
    bars = []
    for rank, (word, value) in enumerate((("first", first), ("newest", last))):
        if value is not None and 0 <= value <= 1 and name == "accuracy":
            bar = el("i", class_=f"k{2 * rank}", style=f"width: {100 * value:.1f}%")
            bars += [el("span", word), el("span", bar), el("b", measured(name, value))]
    big = el(
        "div",
        el("h3", f"{name.capitalize()} on the robots' own held-out examples"),
        change,
        el("p", f"fleet mean, before the first and after the last of {rounds} rounds",
           class_="soft"),
        el("div", *bars, class_="scale"),
        class_="card tall",
    )  # fmt: skip
    version = whole(results.summary.published_version)
    cards = (
        card("Robots on the published version", running(results), f"version {version}"),
        card("Sent per robot and round", size(results.bytes_up), "how its weights changed"),
        card("Robots that trained", whole(len(results.training)), "their examples stayed on board"),
    )
    title = (
        f"{in_words(len(results.training)).capitalize()} robots trained. "
        f"{in_words(results.running).capitalize()} run the newest model. No example left a robot."
    )
    grid = el("div", big, *cards, class_="grid")
    kicker = el("p", "fleetlearn report", class_="kicker")
    return el("header", el("div", kicker, el("h1", title), grid), class_="hero")


def _story(results: Results) -> Html:
    trained = {robot.name: "" for robot in results.training}
    every = {r.name: "" if r.trains else " new" for r in results.summary.robots}
    if len(every) > ROBOTS:
        return Html("")  # the picture would be of dots
    picture = charts.diagram(
        by_site(results, trained),
        by_site(results, every),
        f"{size(results.bytes_up)} per robot",
        f"version {whole(results.summary.published_version)}",
    )
    return section("The fleet", "", el("div", picture, class_="card"))

"""Draw the report's charts as inline SVG; markup.STYLE gives their classes colors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10

from cloud_server.report.markup import Html, el, join, percent

WIDTH = 440  # of a chart: a unit is at most 1.15 pixels, on a phone about 0.8
_CHARACTER = 8.2  # mean width of a character of the charts' text, of 15 units on a phone


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; None interrupts it."""

    name: str
    points: Sequence[float | None]
    style: str  # classes: the site's color and the robot's dashes, or "mean"


def line_chart(
    title: str,
    rounds: Sequence[str],
    lines: Sequence[Line],
    top: float,
    shown: Callable[[float], str],
    band: Sequence[tuple[float, float] | None] = (),
) -> Html:
    """Draw values per round on an axis from 0 to `top`; `shown` writes them.

    `band` is drawn below the lines: the lowest and the highest of each round, None interrupts it.
    """
    left, right, bottom, height = 54.0, WIDTH - 8.0, 200.0, 190.0
    pitch = (right - left) / max(1, len(rounds))
    parts = [_text((left + right) / 2, bottom + 37, "round", "mid soft")]
    for tick in range(5):
        y = bottom - tick / 4 * height
        parts.append(el("path", d=f"M{left} {y:.1f}H{right}", class_="rule"))
        parts.append(_text(left - 8, y + 4, shown(tick / 4 * top), "end soft"))
    places = [left + (index + 0.5) * pitch for index in range(len(rounds))]
    parts += _band(list(zip(places, band, strict=False)), lambda v: bottom - v / top * height)
    every = len(rounds) // 12 + 1
    for x, name in list(zip(places, rounds, strict=True))[::every]:
        parts += [_text(x, bottom + 19, name, "mid soft")]
    for line in lines:
        path, dots, pen = "", [], "M"
        for x, name, value in zip(places, rounds, line.points, strict=True):
            if value is None:
                pen = "M"
                continue
            y = bottom - value / top * height
            path, pen = f"{path}{pen}{x:.1f} {y:.1f}", "L"
            tip = el("title", f"{line.name}, round {name}: {shown(value)}")
            dots.append(el("circle", tip, cx=x, cy=y, r=4, class_=f"dot {line.style}"))
        parts += [el("path", d=path, class_=f"line {line.style}"), *dots]
    return _svg(title, bottom + 42, parts)


def _band(
    bounds: Sequence[tuple[float, tuple[float, float] | None]], y: Callable[[float], float]
) -> list[Html]:
    """Draw an area through neighbours, and in every round how far it reaches."""
    known = [(x, y(one[0]), y(one[1])) if one else None for x, one in bounds]
    parts = [
        el(
            "path",
            d=f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}V{b[2]:.1f}L{a[0]:.1f} {a[2]:.1f}Z",
            class_="area",
        )
        for a, b in pairwise(known)
        if a and b
    ]
    return parts + [
        el("path", d=f"M{one[0]:.1f} {one[1]:.1f}V{one[2]:.1f}", class_="reach")
        for one in known
        if one
    ]


def round_up(value: float) -> float:
    """Return the next number that four ticks divide into short numbers."""
    magnitude = 10.0 ** floor(log10(value)) if value > 0 else 1.0
    return next(
        m * magnitude for m in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if value <= m * magnitude
    )


def stacked_bars(title: str, rows: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> Html:
    """Draw one bar per row, made of its counts by label, all on one scale."""
    left, pitch = _margin(rows), 37
    widest = max((sum(counts.values()) for counts in rows.values()), default=0) or 1
    parts = []
    for index, (name, counts) in enumerate(rows.items()):
        x, y = left, index * pitch
        parts.append(_text(left - 10, y + 19, name, "end"))
        for rank, label in enumerate(labels):
            count = counts.get(label, 0)
            width = count / widest * (WIDTH - left - 38)
            tip = el("title", f"{name}: {count} examples of {label}")
            parts.append(el("rect", tip, x=x, y=y, width=width, height=28, class_=f"l{rank % 8}"))
            if width > _CHARACTER * len(str(count)) + 6:
                parts.append(_text(x + width / 2, y + 19, str(count), "mid onlabel"))
            x += width
        parts.append(_text(x + 8, y + 19, str(sum(counts.values())), "soft"))
    return _svg(title, len(rows) * pitch, parts)


def grouped_bars(
    title: str,
    rows: Mapping[str, Mapping[str, float | None]],
    spots: Mapping[str, Sequence[float]] | None = None,
    *,
    shown: Callable[[float | None], str] = percent,
    styles: Sequence[int] = (0, 1, 2),
) -> Html:
    """Draw shares: a group per row, a bar per entry; `spots` lie on the group's second bar.

    Args:
        title: what is drawn.
        rows: group -> entry -> 0 to 1.
        spots: group -> 0 to 1.
        shown: writes a share.
        styles: rank of each entry among b0, b1 and b2 of markup.STYLE.
    """
    left, bar, y = _margin(rows), 18, 0
    scale, parts = WIDTH - left - 46, []
    for name, values in rows.items():
        parts.append(_text(left - 10, y + bar * len(values) / 2 + 3, name, "end"))
        for rank, (kind, value) in enumerate(values.items()):
            width, said, style = scale * (value or 0), shown(value), styles[rank]
            box = {"x": left, "y": y, "width": width, "height": bar - 4, "class_": f"b{style}"}
            parts.append(el("rect", el("title", f"{name}, {kind}: {said}"), **box))
            parts.append(_text(WIDTH, y + 12, said, f"end v{style}"))
            xs = [left + scale * spot for spot in (spots or {}).get(name, ()) if rank == 1]
            parts += [el("circle", cx=x, cy=y + 7, r=3, class_="spot") for x in xs]
            y += bar
        y += 18
    parts.append(el("path", d=f"M{left} 0V{max(y - 20, 0)}", class_="axis"))
    return _svg(title, max(y - 18, 0), parts)


def heatmap(
    title: str, labels: Sequence[str], matrix: Sequence[Sequence[int]], width: int = WIDTH
) -> Html:
    """Draw counts, truth downwards and prediction rightwards, shaded by the share of the row."""
    left = _margin(labels)
    cell = min(80.0, (width - left) / max(1, len(labels)))
    parts = []
    for row, (label, counts) in enumerate(zip(labels, matrix, strict=True)):
        middle = 22 + (row + 0.5) * cell
        parts.append(_text(left + (row + 0.5) * cell, 13, label, "mid soft", int(cell / 6)))
        parts.append(_text(left - 8, middle + 4, label, "end soft"))
        for column, count in enumerate(counts):
            share, x = count / (sum(counts) or 1), left + (column + 0.5) * cell
            tip = f"{count} frames of {label} were called {labels[column]} ({share:.0%})"
            size = {"width": cell - 3, "height": cell - 3, "rx": 4}
            size |= {"x": x - cell / 2 + 1.5, "y": middle - cell / 2 + 1.5}
            parts.append(el("rect", class_="box", **size))
            parts.append(el("rect", el("title", tip), class_="heat", fill_opacity=share, **size))
            style = "mid count" + " zero" * (not count)
            parts.append(_text(x, middle + 5, str(count), style))
    return _svg(title, 22 + len(labels) * cell, parts, width)


def _robots(y: float, sites: Mapping[str, Sequence[tuple[str, str]]]) -> Html:
    """Draw a box per site, as wide as its robots, each (name, classes), 96 units high."""
    slot = (WIDTH - 10 * (len(sites) - 1)) / max(1, sum(len(site) for site in sites.values()))
    x, parts = 0.0, []
    for site, members in sites.items():
        width = slot * len(members)
        box = {"x": x + 0.5, "y": y, "width": width - 1, "height": 96, "rx": 9, "class_": "box"}
        parts += [el("rect", **box), _text(x + 11, y + 21, site, "head", int(width / 8))]
        for index, (name, style) in enumerate(members):
            middle = x + (index + 0.5) * slot
            half = min(15.0, slot / 2 - 3)
            body = {"x": middle - half, "width": 2 * half, "y": y + 34, "height": 24, "rx": 6}
            drawn = [el("title", name), el("rect", class_="bot", **body)]
            wheels = (middle - half * 0.55, middle + half * 0.55)
            drawn += [el("circle", cx=w, cy=y + 60, r=3.5, class_="lens") for w in wheels]
            drawn.append(el("circle", cx=middle, cy=y + 45, r=5, class_="lens"))
            if slot > _CHARACTER * (len(name) - len(site)):
                short = name.removeprefix(f"{site}-")
                drawn.append(_text(middle, y + 82, short, "mid soft"))
            parts.append(el("g", *drawn, class_=style))
        x += width + 10
    return join(parts)


def diagram(
    training: Mapping[str, Sequence[tuple[str, str]]],
    running: Mapping[str, Sequence[tuple[str, str]]],
    up: str,
    down: str,
) -> Html:
    """Draw training robots -> server -> all robots; `up` and `down` say what travels."""
    notes = (
        (0, 13, "They train on examples that stay on board", "head"),
        (92, 149, "weight updates", ""),
        (92, 166, up, "soft"),
        (302, 149, "averaged weights", ""),
        (302, 166, "every round", "soft"),
        (WIDTH / 2, 216, "server averages and publishes", "mid onserver"),
        (WIDTH / 2 + 14, 254, "published model", ""),
        (WIDTH / 2 + 14, 271, down, "soft"),
        (0, 307, "They all run it; dashed robots never trained", "head"),
    )
    arrows = "M78 126V176m-5 -7l5 7l5 -7M288 184V134m-5 7l5 -7l5 7M220 236V280m-5 -7l5 7l5 -7"
    server = {"x": 70, "y": 190, "width": WIDTH - 140, "height": 42, "rx": 9, "class_": "server"}
    parts = [el("rect", **server), el("path", d=arrows, class_="arrow")]
    parts += [_text(x, y, text, style, 60) for x, y, text, style in notes]
    parts += [_robots(24, training), _robots(317, running)]
    return _svg("Training robots, server, robots that run the model", 415, parts)


def _svg(title: str, height: float, parts: Iterable[str], width: int = WIDTH) -> Html:
    box = {"viewBox": f"0 0 {width} {height:.0f}"}
    # No style where a class will do: a page that allows no style in its markup shows it, too.
    usual = width == WIDTH
    box |= {"class_": "chart"} if usual else {"style": f"max-width: {width * 1.15:.0f}px"}
    return el("svg", *parts, role="img", aria_label=title, **box)


def _text(x: float, y: float, text: str, style: str, most: int = 13) -> Html:
    """Write at most 13 characters of a name: the margin holds no more; the table has it all."""
    return el("text", text if len(text) <= most else f"{text[: most - 1]}…", x=x, y=y, class_=style)


def _margin(names: Iterable[str]) -> float:
    return 16 + _CHARACTER * min(13, max((len(name) for name in names), default=0))

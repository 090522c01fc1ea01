"""The report's look: its style sheet, and charts as inline SVG in the style sheet's colours."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 440  # of a chart: a unit is at most 1.15 pixels, on a phone about 0.8
_CHARACTER = 6.6  # mean width of a character of the charts' 12-pixel text

# s0..: sites; l0..: labels; b0 before, b1 one robot alone, b2 the fleet; d0..: dashes
STYLE = """
:root { color-scheme: light dark; --page: #f6f6f3; --card: #fff; --ink: #16191d; --soft: #59616d;
  --rule: #e1e2dc; --fleet: #0b7a75; --on-fleet: #fff; --before: #a9b0b8; --alone: #d9a441;
  --good: #15803d; --bad: #b42318; --open: #2f5fb3; --s0: #2563c9; --s1: #c2570c; --s2: #7c3aed;
  --s3: #a3195b; --code: #171b21 }
@media screen and (prefers-color-scheme: dark) { :root { --page: #0e1115; --card: #171b21;
  --ink: #e9ebee; --soft: #a3abb7; --rule: #2b313a; --fleet: #3fc9ba; --on-fleet: #06211e;
  --before: #6d7683; --alone: #d9a441; --good: #4ac97e; --bad: #ff8475; --open: #7fa9f5;
  --s0: #6ea2ff; --s1: #ff9a4d; --s2: #b794ff; --s3: #f472b0; --code: #090b0e } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; -webkit-text-size-adjust: 100% }
main, .hero > div, footer { max-width: 1096px; margin: auto; padding: 0 24px }
h1, h2, h3, p, figure, dl, dd, ul { margin: 0 } h1, h2, .big { letter-spacing: -.02em }
h1 { font-size: clamp(30px, 5vw, 50px); line-height: 1.1; max-width: 19em; text-wrap: balance }
h2 { font-size: 25px; line-height: 1.25; margin: 64px 0 6px } h3 { font-size: 15px }
p { max-width: 46em } .soft { color: var(--soft) } .small { font-size: 14px }
.hero { padding: 52px 0 8px } .kicker { color: var(--fleet); font-weight: 650; margin-bottom: 12px }
.grid { display: grid; gap: 20px; margin-top: 20px; grid-template-columns: repeat(2, 1fr) }
.grid > *, .card { min-width: 0 } .grid.three { grid-template-columns: repeat(3, 1fr) }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 22px }
.wide { margin-top: 20px } .tall { grid-row: span 3 } .hero .grid { margin-top: 36px }
.hero .grid { grid-template-columns: 7fr 5fr; gap: 16px } .hero .card { padding: 18px 22px }
.big { font-size: 32px; font-weight: 680; line-height: 1.15; font-variant-numeric: tabular-nums }
.tall .big { font-size: clamp(52px, 8vw, 84px); margin: 6px 0 18px } .big i { font-style: normal }
.big i { color: var(--soft); font-weight: 400 } .big b { color: var(--fleet); font-weight: 700 }
.scale { display: grid; grid-template-columns: auto 1fr auto; gap: 9px 12px; align-items: center }
.scale i { display: block; height: 14px; border-radius: 3px; min-width: 2px }
.scale b { font-variant-numeric: tabular-nums; text-align: right }
.k0 { background: var(--before) } .k1 { background: var(--alone) } .k2 { background: var(--fleet) }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; list-style: none }
.legend { margin: 14px 0 10px; font-size: 14px } .legend svg { vertical-align: -2px; width: auto }
svg { display: block; width: 100%; height: auto } .legend svg { display: inline; margin-right: 7px }
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
text { fill: var(--ink); font-variant-numeric: tabular-nums } text.soft { fill: var(--soft) }
.mid { text-anchor: middle } .end { text-anchor: end } .rule { stroke: var(--rule) }
.axis { stroke: var(--soft) } .line { fill: none; stroke-width: 2; stroke-linejoin: round }
.dot { stroke: var(--card); stroke-width: 1.5 } .d1 { stroke-dasharray: 6 4 }
.d2 { stroke-dasharray: 2 3 } .d3 { stroke-dasharray: 9 3 2 3 } text.onlabel { fill: #16191d }
.s0 { --c: var(--s0) } .s1 { --c: var(--s1) } .s2 { --c: var(--s2) } .s3 { --c: var(--s3) }
.mean { --c: var(--ink) } .line { stroke: var(--c) } .dot { fill: var(--c) }
.line.mean { stroke-width: 3.5 } .l0 { fill: #5bb8ad } .l1 { fill: #f0bf4c } .l2 { fill: #f09474 }
.l3 { fill: #a9b4dc } .l4 { fill: #c99be6 } .l5 { fill: #a3c86d } .l6 { fill: #e9a6bd }
.l7 { fill: #bfb49f } .b0 { fill: var(--before) } .b1 { fill: var(--alone) }
.b2 { fill: var(--fleet) } text.v2 { font-weight: 700 } text.v0, text.v1 { fill: var(--soft) }
.spot { fill: var(--ink); fill-opacity: .75 } .heat { fill: var(--fleet) }
text.count { font-size: 14px; font-weight: 600 } text.onheat { fill: var(--on-fleet) }
text.zero { fill: var(--soft); font-weight: 400 } text.head { font-weight: 650; font-size: 13px }
.box { fill: var(--page); stroke: var(--rule) } .bot { fill: none; stroke: var(--c) }
.bot { stroke-width: 2 } .lens { fill: var(--c) } .new .bot { stroke-dasharray: 4 3 }
.server { fill: var(--fleet) } text.onserver { fill: var(--on-fleet); font-weight: 650 }
.arrow { stroke: var(--soft); stroke-width: 2; fill: none } .tip { fill: var(--soft) }
details { margin-top: 14px; font-size: 14px } summary { cursor: pointer; color: var(--soft) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { padding: 8px 12px; border-bottom: 1px solid var(--rule); text-align: right }
th, td { font-variant-numeric: tabular-nums; white-space: nowrap } th { font-weight: 600 }
td:first-child, th:first-child { text-align: left; padding-left: 0 } thead th { color: var(--soft) }
thead th { vertical-align: bottom; white-space: normal; font-size: 13px }
tbody tr:last-child > * { border-bottom: 0 } .left td { text-align: left; white-space: normal }
.thumbs { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)) }
.thumbs figure { background: var(--card); border-radius: 10px; overflow: hidden; margin: 0 }
.thumbs figure { border: 1px solid var(--rule); border-top: 4px solid var(--c); --c: var(--soft) }
.thumbs .good { --c: var(--good) } .thumbs .bad { --c: var(--bad) }
.thumbs .open { --c: var(--open) }
.thumbs img { display: block; width: 100%; object-fit: cover; object-position: top }
.thumbs .matched img { aspect-ratio: 4 / 3 } figcaption b { color: var(--c) }
.thumbs figcaption { padding: 9px 13px 11px; font-size: 14px; line-height: 1.45 }
pre { background: var(--code); color: #e9ebee; border-radius: 14px; padding: 20px 22px; margin: 0 }
pre { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
pre code { font: inherit; display: block; white-space: pre-wrap; overflow-wrap: anywhere }
pre code { user-select: all; padding-left: 1.6em; text-indent: -1.6em }
pre code::before { content: "$ "; color: #7fd6cb; user-select: none }
.about { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 18px }
.about dt { font-size: 13px; color: var(--soft) } .about dd { font-weight: 600 }
footer { padding: 40px 24px 56px; font-size: 14px; color: var(--soft) }
@media (max-width: 860px) { main, .hero > div, footer { padding: 0 16px }
  .hero { padding-top: 32px } .thumbs { grid-template-columns: 1fr 1fr; gap: 10px }
  .grid, .grid.three, .hero .grid { grid-template-columns: 1fr } h2 { margin-top: 48px }
  .tall { grid-row: auto } .card { padding: 16px } }
@media print { :root { --page: #fff } body { font-size: 12px } h2 { margin-top: 28px }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } h2, h3 { break-after: avoid }
  .card, figure, tr, .thumbs figure { break-inside: avoid } .scroll { overflow: visible }
  details { display: none }
  pre { background: none; color: inherit; border: 1px solid var(--rule) } }
"""


class Html(str):
    """Markup that goes into the page as it is; any other text is escaped first."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; None interrupts it."""

    name: str
    points: Sequence[float | None]
    style: str  # classes: the site's colour and the robot's dashes, or "mean"


def join(parts: Iterable[str]) -> Html:
    """Concatenate markup and text."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def el(name: str, *children: str, **attributes: object) -> Html:
    """Return an element; `class_` becomes class and `rx_y` rx-y, floats are shortened."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{listed}>{join(children)}" + ("" if name == "img" else f"</{name}>"))


def percent(share: float | None, digits: int = 0) -> str:
    """Return 92%, or - for what nobody measured."""
    return "-" if share is None else f"{share:.{digits}%}"


def line_chart(
    title: str,
    rounds: Sequence[str],
    lines: Sequence[Line],
    top: float,
    shown: Callable[[float], str],
) -> Html:
    """Draw values per round on an axis from 0 to `top`; `shown` writes them."""
    left, right, bottom, height = 46.0, WIDTH - 8.0, 200.0, 190.0
    pitch = (right - left) / max(1, len(rounds))
    parts = [_text((left + right) / 2, bottom + 37, "round", "mid soft")]
    for tick in range(5):
        y = bottom - tick / 4 * height
        parts.append(el("path", d=f"M{left} {y:.1f}H{right}", class_="rule"))
        parts.append(_text(left - 8, y + 4, shown(tick / 4 * top), "end soft"))
    places = [left + (index + 0.5) * pitch for index in range(len(rounds))]
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
    spots: Mapping[str, Sequence[float]],
) -> Html:
    """Draw shares: a group per row, a bar per entry; `spots` lie on the group's second bar."""
    left, bar, y = _margin(rows), 18, 0
    scale, parts = WIDTH - left - 46, []
    for name, values in rows.items():
        parts.append(_text(left - 10, y + bar * len(values) / 2 + 3, name, "end"))
        for rank, (kind, value) in enumerate(values.items()):
            width, said = scale * (value or 0), percent(value)
            box = {"x": left, "y": y, "width": width, "height": bar - 4, "class_": f"b{rank}"}
            parts.append(el("rect", el("title", f"{name}, {kind}: {said}"), **box))
            parts.append(_text(left + width + 8, y + 12, said, f"v{rank}"))
            xs = [left + scale * spot for spot in spots.get(name, ()) if rank == 1]
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
            style = "mid count" + " onheat" * (share > 0.6) + " zero" * (not count)
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
        (0, 13, "They train on their own frames, which stay on board", "head"),
        (92, 149, "weight updates", ""),
        (92, 166, up, "soft"),
        (302, 149, "averaged weights", ""),
        (302, 166, "every round", "soft"),
        (WIDTH / 2, 216, "server averages, exports, signs", "mid onserver"),
        (WIDTH / 2 + 14, 254, "published model", ""),
        (WIDTH / 2 + 14, 271, down, "soft"),
        (0, 307, "They all run it; dashed robots never trained", "head"),
    )
    arrows = "M78 126V176m-5 -7l5 7l5 -7M288 184V134m-5 7l5 -7l5 7M220 236V280m-5 -7l5 7l5 -7"
    server = {"x": 90, "y": 190, "width": WIDTH - 180, "height": 42, "rx": 9, "class_": "server"}
    parts = [el("rect", **server), el("path", d=arrows, class_="arrow")]
    parts += [_text(x, y, text, style) for x, y, text, style in notes]
    parts += [_robots(24, training), _robots(317, running)]
    return _svg("Training robots, server, robots that run the model", 415, parts)


def key(style: str, text: str) -> Html:
    """Return an entry of a legend with a piece of line, a robot's dashes included."""
    line = el("path", d="M0 6H30", class_=f"line {style}")
    return el("li", el("svg", line, width=30, height=12, aria_hidden="true"), text)


def _svg(title: str, height: float, parts: Iterable[str], width: int = WIDTH) -> Html:
    box = {"viewBox": f"0 0 {width} {height:.0f}", "style": f"max-width: {width * 1.15:.0f}px"}
    return el("svg", *parts, role="img", aria_label=title, **box)


def _text(x: float, y: float, text: str, style: str, most: int = 13) -> Html:
    """Write at most 13 characters of a name: the margin holds no more; the table has it all."""
    return el("text", text if len(text) <= most else f"{text[: most - 1]}…", x=x, y=y, class_=style)


def _margin(names: Iterable[str]) -> float:
    return 16 + _CHARACTER * min(13, max((len(name) for name in names), default=0))


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

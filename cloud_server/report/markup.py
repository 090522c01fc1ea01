"""Build the report's page: markup that escapes by construction, its styles, number formats."""

from collections.abc import Iterable, Sequence
from html import escape

_WORDS = "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"

# s0..: sites; l0..: labels; b0 before, b1 one robot alone, b2 the fleet; d0..: dashes
STYLE = """
:root { color-scheme: light dark; --page: #f6f6f3; --card: #fff; --ink: #16191d; --soft: #59616d;
  --rule: #e1e2dc; --fleet: #0b7a75; --on-fleet: #fff; --before: #8a939d; --alone: #bd8420;
  --good: #15803d; --bad: #b42318; --open: #2f5fb3; --s0: #2563c9; --s1: #c2570c; --s2: #7c3aed;
  --s3: #a3195b; --code: #171b21; --heat: #43b0a5; --shade: #0003 }
@media screen and (prefers-color-scheme: dark) { :root { --page: #0e1115; --card: #171b21;
  --ink: #e9ebee; --soft: #a3abb7; --rule: #2b313a; --fleet: #3fc9ba; --on-fleet: #06211e;
  --before: #6d7683; --alone: #d9a441; --good: #4ac97e; --bad: #ff8475; --open: #7fa9f5;
  --s0: #6ea2ff; --s1: #ff9a4d; --s2: #b794ff; --s3: #f472b0; --code: #090b0e; --heat: #127068;
  --shade: #fff4 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; -webkit-text-size-adjust: 100% }
main, .hero > div { max-width: 1096px; margin: auto; padding: 0 24px } main { padding-bottom: 72px }
h1, h2, h3, p, figure, dl, dd, ul { margin: 0 } h1, h2, .big { letter-spacing: -.02em }
h1 { font-size: clamp(30px, 5vw, 50px); line-height: 1.1; max-width: 19em; text-wrap: balance }
h2 { font-size: 25px; line-height: 1.25; margin: 64px 0 6px } h3 { font-size: 15px }
p { max-width: 46em } .soft { color: var(--soft) }
.hero { padding: 52px 0 8px } .kicker { color: var(--fleet); font-weight: 650; margin-bottom: 12px }
.grid { display: grid; gap: 20px; margin-top: 20px; grid-template-columns: repeat(2, 1fr) }
.grid > *, .card { min-width: 0 }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 22px }
.tall { grid-row: span 3; display: flex; flex-direction: column }
.story { display: grid; grid-template-columns: 1fr 1fr; gap: 36px; padding: 32px; margin-top: 16px }
.story svg { overflow: visible }
.story p { font-size: 17px; line-height: 1.65 } section > .card, .thumbs, pre { margin: 16px 0 0 }
 .hero .grid { margin-top: 36px }
.hero .grid { grid-template-columns: 7fr 5fr; gap: 16px } .hero .card { padding: 18px 22px }
.big { font-size: 32px; font-weight: 680; line-height: 1.15; font-variant-numeric: tabular-nums }
.tall .big { font-size: clamp(52px, 8vw, 84px); margin: 6px 0 18px } .big i { font-style: normal }
.big i { color: var(--soft); font-weight: 400 } .big b { color: var(--fleet); font-weight: 700 }
.scale { display: grid; grid-template-columns: auto 1fr auto; gap: 14px 14px; align-items: center }
.tall .scale { flex: 1; grid-auto-rows: 1fr }
.scale i { display: block; height: 22px }
.tall .scale i { height: 38px }
.scale i { border-radius: 3px; min-width: 2px }
.scale b { font-variant-numeric: tabular-nums; text-align: right }
.k0 { background: var(--before) } .k1 { background: var(--alone) } .k2 { background: var(--fleet) }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; list-style: none }
.legend { margin: 14px 0 10px; font-size: 14px } .legend svg { vertical-align: -2px; width: auto }
.area { fill: var(--s0); opacity: .16 } .reach { stroke: var(--s0); opacity: .4 }
.chart { max-width: 506px }
svg { display: block; width: 100%; height: auto } .legend svg { display: inline; margin-right: 7px }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
text { fill: var(--ink); font-variant-numeric: tabular-nums } text.soft { fill: var(--soft) }
.mid { text-anchor: middle } .end { text-anchor: end } .rule { stroke: var(--rule) }
.axis { stroke: var(--soft) } .line { fill: none; stroke-width: 2; stroke-linejoin: round }
.dot { stroke: var(--card); stroke-width: 1.5 } .line.d1 { stroke-dasharray: 6 4 }
.line.d2 { stroke-dasharray: 2 3 } .line.d3 { stroke-dasharray: 9 3 2 3 }
text.onlabel { fill: #16191d }
.s0 { --c: var(--s0) } .s1 { --c: var(--s1) } .s2 { --c: var(--s2) } .s3 { --c: var(--s3) }
.mean { --c: var(--ink) } .line { stroke: var(--c) } .dot { fill: var(--c) }
.line.mean { stroke-width: 8; opacity: .28; stroke-linecap: round } .dot.mean { opacity: 0 }
 .l0 { fill: #5bb8ad } .l1 { fill: #f0bf4c } .l2 { fill: #f09474 }
.l3 { fill: #a9b4dc } .l4 { fill: #c99be6 } .l5 { fill: #a3c86d } .l6 { fill: #e9a6bd }
.l7 { fill: #bfb49f } .b0 { fill: var(--before) } .b1 { fill: var(--alone) }
.b2 { fill: var(--fleet) } text.v2 { font-weight: 700 } text.v0, text.v1 { fill: var(--soft) }
.spot { fill: var(--ink); stroke: var(--card); stroke-width: 1.5 } .heat { fill: var(--heat) }
text.count { font-size: 14px; font-weight: 600 }
text.zero { fill: var(--soft); font-weight: 400 } text.head { font-weight: 650; font-size: 13px }
.box { fill: var(--page); stroke: var(--rule) } .bot { fill: none; stroke: var(--c) }
.bot { stroke-width: 2 } .lens { fill: var(--c) } .new .bot { stroke-dasharray: 4 3 }
.server { fill: var(--fleet) } text.onserver { fill: var(--on-fleet); font-weight: 650 }
.arrow { stroke: var(--soft); stroke-width: 2; fill: none }
details { margin-top: 14px; font-size: 14px } summary { cursor: pointer; color: var(--soft) }
.scroll { overflow-x: auto; background: linear-gradient(90deg, var(--card) 24px, transparent 60px)
  local, linear-gradient(270deg, var(--card) 24px, transparent 60px) local,
  linear-gradient(90deg, var(--shade), transparent 14px) scroll,
  linear-gradient(270deg, var(--shade), transparent 14px) scroll }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { padding: 8px 12px; border-bottom: 1px solid var(--rule); text-align: right }
th, td { font-variant-numeric: tabular-nums; white-space: nowrap } th { font-weight: 600 }
td:first-child, th:first-child { text-align: left; padding-left: 0 } thead th { color: var(--soft) }
thead th { vertical-align: bottom; white-space: normal; font-size: 13px }
tbody tr:last-child > * { border-bottom: 0 } .words { margin-top: 16px }
.words td:last-child, .words th:last-child { text-align: left; padding-left: 28px; width: 60% }
.thumbs { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)) }
.thumbs figure { background: var(--card); border-radius: 10px; overflow: hidden; margin: 0 }
.thumbs figure { border: 1px solid var(--rule); --c: var(--soft) }
figcaption span { display: block } .stack { display: grid; gap: 20px; align-content: start }
.thumbs .good { --c: var(--good) } .thumbs .bad { --c: var(--bad) }
.thumbs .open { --c: var(--open) }
.thumbs img { display: block; width: 100%; object-fit: cover; object-position: top }
.thumbs .matched img { aspect-ratio: 4 / 3 } figcaption b { color: var(--c) }
.thumbs figcaption { padding: 9px 13px 11px; font-size: 14px; line-height: 1.45 }
.pairs { display: grid; gap: 16px; margin-top: 16px }
.pairs .card { padding: 14px } .pairs img { display: block; width: 100%; border-radius: 6px }
.pair { display: grid; gap: 10px; grid-template-columns: 1fr 1fr; margin-top: 8px }
.pair p { font-size: 14px; margin-bottom: 4px }
pre { background: var(--code); color: #e9ebee; border-radius: 14px; padding: 20px 22px }
.note { margin: 4px 0 12px; font-size: 14px }
pre { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace }
pre code { font: inherit; display: block; white-space: pre-wrap; overflow-wrap: anywhere }
pre code span { white-space: nowrap }
pre code { user-select: all; padding-left: 1.6em; text-indent: -1.6em }
pre code::before { content: "$ "; color: #7fd6cb; user-select: none }
.about { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 18px }
.about dt { font-size: 13px; color: var(--soft) } .about dd { font-weight: 600 }
@media screen and (max-width: 860px) { main, .hero > div { padding: 0 16px 24px }
  .hero { padding-top: 32px } .thumbs { grid-template-columns: 1fr 1fr; gap: 10px }
  .grid, .hero .grid, .story { grid-template-columns: 1fr } h2 { margin-top: 48px }
  .pair { grid-template-columns: 1fr } .tall { grid-row: auto } .card { padding: 12px }
  .tall .scale i { height: 22px }
  main, .hero > div { padding: 0 10px 24px } text, text.head { font-size: 15px } }
@media print { :root { --page: #fff } body { font-size: 12px } h2 { margin-top: 28px }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } h2, h3 { break-after: avoid }
  p, .card, figure, tr, .thumbs figure { break-inside: avoid } .scroll { overflow: visible }
  section > p { break-after: avoid } details { display: none } .tall .big { font-size: 52px }
  .thumbs { grid-template-columns: repeat(4, 1fr); gap: 8px } th, td { padding: 5px 3px }
  table, thead th, .thumbs figcaption, .note { font-size: 9.5px }
  .grid { gap: 12px } .story p, h3 { font-size: 13px }
  pre { background: none; color: inherit; border: 1px solid var(--rule) } }
"""


class Html(str):
    """Markup that goes into the page as it is; any other text is escaped first."""

    __slots__ = ()

    def __html__(self) -> str:
        """Tell templates that it is escaped."""
        return self


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


def section(title: str, lead: str, *content: str) -> Html:
    """Return a section of the page; `lead` says how to read it."""
    return el("section", el("h2", title), el("p", lead, class_="soft"), *content)


def figure(title: str, *content: str) -> Html:
    """Return a card with a title."""
    return el("figure", el("h3", title), *content, class_="card")


def command_line(text: str) -> Html:
    """Return a command that breaks between words alone, unless one is longer than a line."""
    words = [el("span", word) if len(word) < 36 else word for word in text.split(" ")]
    return el("code", *[part for word in words for part in (" ", word)][1:])


def folded(content: str) -> Html:
    """Hide the numbers behind a chart until someone asks for them."""
    return el("details", el("summary", "The numbers behind it"), content)


def line_key(style: str, text: str) -> Html:
    """Return a legend's entry with a piece of line, dashes included."""
    line = el("path", d="M0 6H30", class_=f"line {style}")
    return el("li", el("svg", line, width=30, height=12, aria_hidden="true"), text)


def box_key(style: str, text: str) -> Html:
    """Return a legend's entry with a filled box."""
    box = el("rect", width=12, height=12, rx=2, class_=style)
    return el("li", el("svg", box, width=12, height=12, aria_hidden="true"), text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """Return a table that scrolls within itself on a narrow screen; the first column names rows."""
    columns = el("tr", *(el("th", name, scope="col") for name in head))
    body = [
        el("tr", el("th", row[0], scope="row"), *(el("td", cell) for cell in row[1:]))
        for row in rows
    ]
    table = el("table", el("thead", columns), el("tbody", *body))
    return el("div", table, class_="scroll", tabindex=0)


def percent(share: float | None, digits: int = 0) -> str:
    """Return 92%, or - for what nobody measured."""
    return "-" if share is None else f"{share:.{digits}%}"


def in_words(count: int | None) -> str:
    """Return seven for 7, 13 for 13."""
    return whole(count) if count is None or count >= len(_WORDS) else _WORDS[count]


def whole(value: int | None) -> str:
    """Return the number, or -."""
    return "-" if value is None else str(value)


def decimal(value: float | None, digits: int) -> str:
    """Return the number with so many digits behind the point, or -."""
    return "-" if value is None else f"{value:.{digits}f}"


def size(count: float | None) -> str:
    """Return 24.7 kB, or -; 1 kB is 1000 bytes."""
    if count is None:
        return "-"
    unit = next((u for u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u[0]), (1, "bytes"))
    return f"{count / unit[0]:.{0 if unit[0] == 1 else 1}f} {unit[1]}"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

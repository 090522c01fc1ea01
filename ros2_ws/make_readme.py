"""Write the tables of parameters into ros2_ws/README.md, from those that the nodes declare.

    python ros2_ws/make_readme.py

A test fails while the page differs from what this writes. Needs no ROS.
"""

import re
import sys
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent
README = WORKSPACE / "README.md"
sys.path.append(str(WORKSPACE / "src" / "edge_perception"))

from edge_perception.parameters import ParameterSpec  # noqa: E402
from edge_perception.tables import TABLES, table_of  # noqa: E402

_PLACE = re.compile(r"(<!-- (\w+): python ros2_ws/make_readme.py -->\n).*?(<!-- end -->)", re.S)


def page(text: str) -> str:
    """Return the page with today's tables; raises SystemExit if a node has no place in it."""
    places = [program for _, program, _ in _PLACE.findall(text)]
    if sorted(places) != sorted(TABLES):
        raise SystemExit(f"{README.name}: has places for {places}, expected {sorted(TABLES)}")
    return _PLACE.sub(lambda found: f"{found[1]}{table(table_of(found[2]))}{found[3]}", text)


def table(specs: tuple[ParameterSpec, ...]) -> str:
    """Return the parameters of one node as a table."""
    lines = ["| parameter | type | default | allowed | |", "| --- | --- | --- | --- | --- |"]
    for spec in specs:
        default = "[]" if spec.default == () else spec.default
        default = str(default).lower() if isinstance(default, bool) else default
        changes = "; can be changed at run time" if spec.at_run_time else ""
        shown = f"`{default}`" if default != "" else ""
        cells = (f"`{spec.name}`", spec.type, shown, spec.allowed, spec.description + changes)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(page(README.read_text(encoding="utf-8")), encoding="utf-8")

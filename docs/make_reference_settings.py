"""Write docs/reference-settings.md from the settings that the code reads.

    python docs/make_reference_settings.py [FILE]

A test fails while the page differs from what this writes.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from cloud_server.state import settings as server
from edge_agent.robot import settings as robot
from fleet_model.settings import Setting, settings_of

PAGE = Path(__file__).with_name("reference-settings.md")
HEAD = (
    "# Settings\n\n"
    "This page is generated from the code. `cloud-server init` and `edge-agent enroll` write these "
    "files with the same comments.\n\n"
    "A value is taken from the environment variable if there is one, otherwise from the file, "
    "otherwise the default is used. Unknown keys are refused when the program starts. In an "
    "environment variable, numbers and texts are written plainly (`true`, `0.01`, `buffered`) and "
    "tables as in TOML. Lists of names are separated by commas on the server, lists of paths by "
    "`:` on the robot.\n"
)


def page() -> str:
    """Return the whole page."""
    parts = [
        HEAD,
        "## server.toml\n",
        *_sections(settings_of(server.ServerSettings, server.ENVIRONMENT)),
        "## agent.toml\n",
        "Relative paths start in the folder of agent.toml.\n",
        *_sections(settings_of(robot.AgentSettings, robot.ENVIRONMENT)),
    ]
    return "\n".join(parts)


def _sections(settings: Sequence[Setting]) -> Iterator[str]:
    for section, group in groupby(settings, key=lambda one: one.section):
        yield f"### [{section}]\n" if section else "### Above all sections\n"
        yield "| key | value | default | meaning | environment variable |"
        yield "| --- | --- | --- | --- | --- |"
        for one in group:
            default = f"`{one.default}`" if one.default else ""
            yield (
                f"| {one.key} | {_cell(one.expected)} | {_cell(default)} | "
                f"{_cell(one.description)} | `{one.variable}` |"
            )
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(page(), encoding="utf-8")

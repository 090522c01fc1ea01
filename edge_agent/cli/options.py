"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path, typer.Option("--config", "-c", "--dir", help="agent.toml of this robot, or its folder")
]
CONFIG = Path("agent.toml")

"""Power cuts while files are written that a person asked for: a chart, a table, a contact sheet."""

import hashlib
import io
from contextlib import ExitStack
from pathlib import Path

from data_scenarios import recording
from power_cuts import Scenario
from recorder import mark

from cloud_server.simulation.chart import write_chart
from edge_agent.cli.inspect_command import _write_sheet
from edge_agent.data.inspection.inspect import inspect
from edge_agent.models.prediction_files import row_writer
from edge_agent.models.predictions import COLUMNS, OF_FRAMES, Row
from fleet_model.types import Prediction

NAMES = "chart.png", "table.csv", "sheet.png"


def _old_files(root: Path) -> None:
    for name in NAMES:
        (root / name).write_bytes(b"of yesterday")


def _write_reports(root: Path) -> None:
    chart, table, sheet = (root / name for name in NAMES)
    write_chart(chart, "Rounds", "as simulated", [])
    mark()
    with ExitStack() as files:
        write = row_writer(table, io.StringIO(), (*OF_FRAMES, *COLUMNS["class"]), files)
        star = Prediction(label="star", score=0.9)
        write(Row(file="monday", topic="/camera", stamp_ns=1, prediction=star))
    mark()
    _write_sheet(inspect(recording() / "monday"), sheet)
    mark()


def _digests(root: Path) -> list[str]:
    return [hashlib.sha256((root / name).read_bytes()).hexdigest()[:8] for name in NAMES]


REPORTS = Scenario(prepare=_old_files, act=_write_reports, observe=_digests, resume=_write_reports)

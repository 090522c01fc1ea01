"""Remember which moments a robot was trained on, so that they are never measured with."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from edge_agent.examples.held_out import Moment
from fleet_model.durable import write_durably
from fleet_model.types import NS_PER_S

_LIMIT = 100_000  # segments of a label: twelve days of ten seconds each, without a break
log = logging.getLogger(__name__)


class TrainedMoments:
    """For every label and time segment, the newest moment that was trained on, kept in a file.

    In a segment all moments up to that one count as trained on: `HeldOutSplit` holds out whole
    segments or the newest part of one. A few bytes per segment are kept, not one entry per frame,
    and they are kept when the frames are gone: those of a disk that is unplugged come back.
    """

    def __init__(self, file: Path | None, segment_s: float) -> None:
        """Read the file; one that is missing, damaged or of other segments counts as empty.

        Args:
            file: None keeps nothing between two processes.
            segment_s: as given to HeldOutSplit.
        """
        self._file = file
        self._segment_ns = round(segment_s * NS_PER_S)
        self._newest: dict[str, dict[int, tuple[int, str]]] = {}
        if file is not None:
            self._newest = _read(file, self._segment_ns)

    def __contains__(self, moment: object) -> bool:
        assert isinstance(moment, Moment)
        newest = self._newest.get(moment.label, {}).get(moment.stamp_ns // self._segment_ns)
        return newest is not None and (moment.stamp_ns, moment.name) <= newest

    def add(self, moments: Iterable[Moment]) -> None:
        """Remember them, on disk before this returns; a disk that is full costs only the memory."""
        changed = False
        for moment in moments:
            if moment in self:
                continue
            of_label = self._newest.setdefault(moment.label, {})
            of_label[moment.stamp_ns // self._segment_ns] = (moment.stamp_ns, moment.name)
            changed = True
        if changed and self._file is not None:
            try:
                write_durably(self._file, self._as_json())
            except OSError as error:
                log.warning("%s: what was trained on is not kept: %s", self._file.name, error)

    def _as_json(self) -> str:
        labels = {
            label: [[*newest] for _, newest in sorted(segments.items())[-_LIMIT:]]
            for label, segments in self._newest.items()
        }
        return json.dumps({"segment_ns": self._segment_ns, "labels": labels})


def _read(file: Path, segment_ns: int) -> dict[str, dict[int, tuple[int, str]]]:
    try:
        content = json.loads(file.read_text())
        if content["segment_ns"] != segment_ns:
            return {}
        return {
            label: {stamp_ns // segment_ns: (stamp_ns, name) for stamp_ns, name in newest}
            for label, newest in content["labels"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s: cannot be read (%s); what was trained on is forgotten", file.name, error)
        return {}

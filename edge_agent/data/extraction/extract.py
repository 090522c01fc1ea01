"""Turn bags and data sets into a data set on disk: chosen, labelled, complete after any crash.

    labelled_entries -> selection by time -> load -> measure -> drop -> encode -> file -> journal

and at the end the format's own index files. Only what passes a step costs the next one. The same
options give the same files, byte for byte, also after `kill -9` at any moment: what the journal
remembers is checked on the disk and not made again.
"""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.data.extraction.command import command_text
from edge_agent.data.extraction.disk import checksum
from edge_agent.data.extraction.files import FrameNames, require_image_format
from edge_agent.data.extraction.journal import Journal, Outcome, Skipped, Written
from edge_agent.data.extraction.left_out import may_be_left_out
from edge_agent.data.extraction.output import ExtractOutput
from edge_agent.data.extraction.selection import Selection, reason_to_skip, require_order
from edge_agent.data.extraction.stages import Candidate, Quality, encoded
from edge_agent.data.frames.damage import NO_LABEL_TOPIC, WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import is_live, shown
from edge_agent.data.label_words import require_label_source, require_label_topic
from edge_agent.data.labels import (
    LabelledEntry,
    LabelSettings,
    labelled_entries,
    open_format,
)
from edge_agent.data.manifest import has_label_alone, is_labelled, row_line
from fleet_model.errors import FrameError, SettingsError, StorageError
from fleet_model.files.damage import Damage, DamageLog

_FASTEST_HZ, _LONGEST_S = 1e6, 1e9  # beyond, someone mistyped


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """What to extract and how. The same options into the same `out` continue where they ended."""

    # Bags, videos, data sets of any kind that labels.py reads; or one live source, until it is
    # stopped or `selection.end` is reached.
    paths: tuple[Path, ...]
    out: Path  # made if needed; else empty, or begun with these options
    labels: LabelSettings = field(default_factory=LabelSettings)  # and which topic of a bag
    selection: Selection = field(default_factory=Selection)
    format: str = "folder"  # key of label_formats.FORMATS
    image_format: str = "keep"  # "keep": the bytes as sent, raw ones as PNG or TIFF; "jpeg", "png"
    min_sharpness: float | None = None  # drop blurred pictures; 0 only measures; None does not
    drop_duplicates: bool = False  # drop pictures nearly the same as the last one kept


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSummary:
    """What became of every frame: frames_seen == frames_written + all of `skipped`."""

    frames_seen: int
    frames_written: int
    frames_labelled: int  # of frames_written: with a label, with boxes, or found empty
    skipped: dict[str, int]  # reason -> frames: "rate", "blurred", "short data", ...
    damage: tuple[Damage, ...]  # also what could not even be counted as frames
    already_there: int  # of frames_written: an earlier run wrote them, and they are intact
    left_out: tuple[str, ...]  # bags that gave nothing, since they are unreadable or lack a topic


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an extraction is, in frames."""

    seen: int
    written: int


def extract(
    options: ExtractOptions, progress: Callable[[Progress], None] | None = None
) -> ExtractSummary:
    """Extract; see the module. Memory does not grow with the pictures.

    For each frame 8 bytes are kept, of a .db3 another 40; the labels of a topic are kept as well.
    Other messages take nothing, but 25 bytes each while the losses of a damaged .db3 are counted.

    Args:
        options: what and how.
        progress: called often, so it must be quick.

    Raises:
        SettingsError: the options contradict each other, or `out` holds something else.
        FrameError: nothing there can be read, or a topic must be named.
        StorageError: the disk is full or fails; the frames written so far are a valid data set,
            and the same options continue once there is space.
    """
    _require_options(options)
    try:
        with Journal(options.out, _command(options)) as journal:
            return _extract_into(journal, options, progress)
    except OSError as error:
        raise StorageError(f"{options.out.name}: cannot be written ({error.strerror})") from None


def _extract_into(
    journal: Journal, options: ExtractOptions, progress: Callable[[Progress], None] | None
) -> ExtractSummary:
    output = ExtractOutput(options.out, options.format, journal)
    try:
        with closing(journal.outcomes()) as remembered:
            return _Extraction(options, output, remembered, progress).run()
    except (OSError, StorageError) as error:
        output.rescue(error)
    finally:
        output.close()


def _require_options(options: ExtractOptions) -> None:
    selection = options.selection
    require_order(selection)
    require_image_format(options.image_format)
    open_format(options.format)
    if not options.paths:
        raise SettingsError("nothing to extract: name a bag or a data set")
    if not 0 <= selection.rate_hz <= _FASTEST_HZ or selection.every_n < 1:
        raise SettingsError(
            f"a rate is 0 to {_FASTEST_HZ:g} frames a second, and every n-th frame means n of at "
            f"least 1; got {selection.rate_hz} and {selection.every_n}"
        )
    if not 0 < options.labels.tolerance_s <= _LONGEST_S:
        raise SettingsError(
            f"a label may lie up to {_LONGEST_S:g} seconds from its frame, more than 0; got "
            f"{options.labels.tolerance_s}"
        )
    if options.min_sharpness is not None and not 0 <= options.min_sharpness < math.inf:
        raise SettingsError(f"a sharpness is at least 0, got {options.min_sharpness}")
    live = [path for path in options.paths if is_live(path)]
    if live and len(options.paths) > 1:
        raise SettingsError(f"{shown(live[0])}: is live and does not end; extract it alone")
    recorded = [path for path in options.paths if path not in live]
    _require_outside(options.out, recorded)
    missing = [path.name for path in recorded if not path.exists()]
    if missing:
        raise FrameError(f"{missing[0]}: no such file or folder", "missing file")
    require_label_source(options.paths, options.labels.label_topic)
    if len(options.paths) > 1:
        require_label_topic(options.paths, options.labels)


def _require_outside(into: Path, paths: Iterable[Path]) -> None:
    """Refuse to write into what is read: the source would change while it is read."""
    out = into.resolve()
    for path in paths:
        if out == path.resolve() or path.resolve() in out.parents:
            raise SettingsError(
                f"{into.name}: lies in {path.resolve().name}, which is read; name another --out"
            )


def _command(options: ExtractOptions) -> str:
    images = (
        f"format {options.format}, images {options.image_format}, sharpness "
        f"{options.min_sharpness!r}, duplicates {'dropped' if options.drop_duplicates else 'kept'}"
    )
    return command_text(options.paths, options.labels, options.selection, images)


class _Extraction:
    """One run. What it counts is the same whether a frame was written now or earlier."""

    def __init__(
        self,
        options: ExtractOptions,
        output: ExtractOutput,
        remembered: Iterator[Outcome],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._options = options
        self._output = output
        self._remembered = remembered
        self._progress = progress
        self._boxes_only = open_format(options.format).holds_boxes_only
        self._names = FrameNames()
        self._damage = DamageLog()
        self._skipped = Counter[str]()
        self._left_out: list[str] = []
        self._seen = self._written = self._labelled = self._already_there = 0

    def run(self) -> ExtractSummary:
        quality = Quality(
            self._options.image_format, self._options.min_sharpness, self._options.drop_duplicates
        )
        with (
            closing(self._candidates()) as candidates,
            closing(encoded(candidates, quality, self._damage)) as ready,
        ):
            for candidate in ready:
                self._settle(candidate)
                if self._progress:
                    self._progress(Progress(self._seen, self._written))
        self._output.finish()
        return ExtractSummary(
            frames_seen=self._seen,
            frames_written=self._written,
            frames_labelled=self._labelled,
            skipped=dict(self._skipped),
            damage=self._damage.all(),
            already_there=self._already_there,
            left_out=tuple(self._left_out),
        )

    def _candidates(self) -> Generator[Candidate, None, None]:
        """Yield the chosen frames of every path; a bag that gives none may be damage."""
        paths = self._options.paths
        failures: list[FrameError] = []
        for source, path in enumerate(paths):
            try:
                yield from self._chosen(source, path)
            except FrameError as error:
                failures.append(error)
                if len(failures) == len(paths) or not may_be_left_out(path, error):
                    raise
                self._leave_out(path, error)

    def _leave_out(self, path: Path, error: FrameError) -> None:
        self._left_out.append(path.name)
        if error.reason != WRONG_LABEL_TOPIC:
            self._damage.add(error.reason, str(error))
            return
        without_labels = LabelSettings(self._options.labels.topic)
        frames = sum(1 for _ in self._selected(path, without_labels))
        self._skipped[NO_LABEL_TOPIC] += frames
        self._damage.add(NO_LABEL_TOPIC, str(error), frames)

    def _chosen(self, source: int, path: Path) -> Iterator[Candidate]:
        for entry in self._selected(path, self._options.labels):
            yield self._recalled(Candidate(entry.time_ns, entry.load, source), path)

    def _selected(self, path: Path, labels: LabelSettings) -> Iterator[LabelledEntry]:
        """Yield the chosen ones; count all."""
        skip = reason_to_skip(self._options.selection)
        end = self._options.selection.end if is_live(path) else None
        end_ns: int | None = None
        for entry in labelled_entries(path, labels, self._damage):
            if end is not None:
                end_ns = end.after(entry.time_ns) if end_ns is None else end_ns
                if entry.time_ns >= end_ns:
                    return  # a recording may go back in time, what is live does not
            self._seen += 1
            reason = skip(entry.time_ns)
            if reason:
                self._skipped[reason] += 1
            else:
                yield entry

    def _recalled(self, candidate: Candidate, path: Path) -> Candidate:
        """Add what the journal remembers of it."""
        remembered = candidate.remembered = next(self._remembered, None)
        if isinstance(remembered, Written):
            candidate.intact = self._output.holds(remembered)
        elif remembered is not None:
            candidate.dropped = remembered
        if remembered is not None and remembered.time_ns != candidate.time_ns:
            raise _changed(path.name)
        return candidate

    def _settle(self, candidate: Candidate) -> None:
        """Write what is left to be written; count."""
        if candidate.dropped:
            self._drop(candidate, candidate.dropped)
        elif isinstance(candidate.remembered, Written):
            self._keep(candidate, candidate.remembered)
        else:
            self._write(candidate)

    def _drop(self, candidate: Candidate, dropped: Skipped) -> None:
        if candidate.remembered is None:
            self._output.remember(dropped)
        elif candidate.remembered is not dropped:
            raise _changed(dropped.begins)
        self._skipped[dropped.reason] += 1
        if dropped.begins:
            self._damage.add(dropped.reason, dropped.begins)

    def _keep(self, candidate: Candidate, remembered: Written) -> None:
        """Count a frame that an earlier run has written; write it again where it is damaged."""
        self._names.name(remembered.source, remembered.topic, remembered.stamp_ns)
        self._written += 1
        self._count_label(remembered.line)
        if candidate.intact:
            self._already_there += 1
            for loss in remembered.losses:
                self._damage.add(loss.kind, loss.begins, loss.count)
            return
        assert candidate.file is not None  # neither dropped nor intact
        data = candidate.file.data
        if checksum(data) != remembered.checksum:
            raise _changed(remembered.file)
        self._output.write(remembered.file, data)

    def _write(self, candidate: Candidate) -> None:
        labelled, file = candidate.labelled, candidate.file
        assert labelled is not None
        assert file is not None
        frame = labelled.frame
        name = self._names.name(frame.source, frame.topic, frame.stamp_ns) + file.suffix
        row = candidate.row(name)
        path = self._output.path_of(row)
        written_checksum = self._output.write(path, file.data)
        line = row_line(row, path)
        self._output.remember(
            Written(
                candidate.time_ns,
                path,
                frame.source,
                frame.topic,
                frame.stamp_ns,
                len(file.data),
                written_checksum,
                candidate.hash,
                candidate.losses,
                line,
            )
        )
        self._written += 1
        self._count_label(line)

    def _count_label(self, line: str) -> None:
        self._labelled += is_labelled(line)
        if self._boxes_only and has_label_alone(line):
            form = self._options.format
            where = (
                f"{line.partition(',')[0]}: {form} files hold boxes, so only manifest.csv has it"
            )
            self._damage.add("label without a box", f"{where}; --format folder keeps all labels")


def _changed(what: str) -> SettingsError:
    return SettingsError(
        f"{what}: is not what it was when this extraction began (the source or the installed "
        "libraries have changed); choose another --out"
    )

"""Where a robot's examples come from: camera frames, texts in tables, a source of your own."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from edge_agent.data.table_paths import is_tables
from edge_agent.examples.left_out import by_kind, tell
from edge_agent.examples.spool.watch import FOLDER as KEPT
from edge_agent.examples.taught import TEACHERS
from edge_agent.examples.texts.told import FILE as TOLD
from edge_agent.robot.settings import FRAMES, TEXTS, AgentSettings
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.tables.find import table_suffix
from fleet_model.types import Example
from fleet_model.workload import installed

EXAMPLE_SOURCES = {
    FRAMES: "edge_agent.examples.source:open_frames",
    TEXTS: "edge_agent.examples.texts.text_store:open_texts",
}
GROUP = "fleetlearn.examples"  # of entry points: name -> "module:factory"
TRAINED, INDEX = "trained.json", "known-frames"  # in the state directory
ANSWERED = Path("labels", "frames")  # there, too: what `edge-agent label` keeps
log = logging.getLogger(__name__)


class ExampleSource(Protocol):
    """Lists what this robot may learn from; built as `factory(**options)`.

    A source opens whatever it reads in `examples`, which runs in the training process.
    """

    def examples(self) -> Iterator[Example]:
        """Yield every example, all of them at every call; their order does not matter.

        A key stays the same from round to round as long as `raw` does: features are cached by it.
        What cannot be read is left out, or its `raw` raises FrameError when the workload reads it.

        Raises:
            FrameError: nothing at all can be read.
        """
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """Reason, in a few words that hold no path -> how many the last `examples` left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A source by its name, so that another process can open it."""

    name: str  # a key of EXAMPLE_SOURCES, an installed one, or "module:factory"
    options: Mapping[str, Any]  # JSON values only

    def renamed(self, former: Mapping[str, str]) -> "SourceSpec":
        """Return the source for a fleet that calls some labels otherwise than recordings may.

        Args:
            former: earlier name -> name. The operator's own aliases come first.
        """
        if not former or self.name not in EXAMPLE_SOURCES:
            return self
        own = {w: former.get(name, name) for w, name in self.options.get("aliases", {}).items()}
        return replace(self, options={**self.options, "aliases": {**former, **own}})

    def open(
        self, labels: Sequence[str] = (), *, boxes: bool = False, answers: bool = False
    ) -> ExampleSource:
        """Return the source.

        A source of your own gets no arguments: the workload leaves out what it cannot learn from.

        Args:
            labels: those that the workload knows, of whole inputs or of boxes: frames without one
                of them are left out before a part is held out. Without them every label is one.
            boxes: whether boxes are learned: then frames are left out in which nobody has said
                what is there.
            answers: whether texts are instructions, and their answers learned.

        Raises:
            SettingsError: there is no such source, or it does not take these options.
        """
        factory = load_plugin(known_sources(), self.name)
        options = dict(self.options)
        if self.name in EXAMPLE_SOURCES:
            options |= {"labels": list(labels), "boxes": boxes, "answers": answers}
        try:
            source = factory(**options)
        except TypeError as reason:
            raise SettingsError(
                f"examples.source {self.name!r} cannot be opened with the options "
                f"{', '.join(sorted(self.options)) or 'of examples.options, which are none'}: "
                f"{reason}"
            ) from None
        if not callable(getattr(source, "examples", None)):
            raise SettingsError(
                f"examples.source {self.name!r} gives a {type(source).__name__}, expected an "
                "object with a method examples()"
            )
        return cast("ExampleSource", source)

    def examples(
        self,
        labels: Sequence[str] = (),
        counts: Counter[str] | None = None,
        *,
        boxes: bool = False,
        answers: bool = False,
    ) -> Iterator[Example]:
        """Open the source and yield its examples; log at the end how many it left out, and why.

        Args:
            labels: as `open`.
            counts: gets kind -> examples left out, see fleet_model.protocol.example_counts.
            boxes: as `open`.
            answers: as `open`.

        Raises:
            SettingsError: as `open`.
            FrameError: nothing at all can be read.
        """
        source = self.open(labels, boxes=boxes, answers=answers)
        try:
            yield from source.examples()
        finally:
            left_out: Mapping[str, int] = getattr(source, "left_out", {})
            if counts is not None:
                counts.update(
                    by_kind(left_out, "unreadable" if self.name in EXAMPLE_SOURCES else "other")
                )
            if left_out:
                log.info("left out of the examples: %s", tell(left_out))
            if renamed := getattr(source, "renamed", {}):
                log.info("labels by aliases: %s", tell(renamed))


def known_sources() -> Mapping[str, str]:
    """Return name -> "module:factory" of ours and of installed packages."""
    return {**installed(GROUP), **EXAMPLE_SOURCES}


def source_for(paths: Sequence[Path]) -> str:
    """Return which of our sources reads these paths; raises SettingsError if it takes two."""
    texts = [is_tables(p) or bool(table_suffix(p.name) and not p.exists()) for p in paths]
    if any(texts) and not all(texts):
        raise SettingsError(
            f"{paths[texts.index(True)].name} is a table of texts, and "
            f"{paths[texts.index(False)].name} is none; a robot learns from one kind of examples"
        )
    return TEXTS if any(texts) else FRAMES


def require_source(name: str) -> None:
    """Raise SettingsError for a source that there is not; a plug-in is not imported for that."""
    known = known_sources()
    if name not in known and ":" not in name:
        raise SettingsError(
            f"examples.source: no source {name!r}; choose {', '.join(sorted(known))} or "
            "module:factory"
        )


def source_of(
    settings: AgentSettings,
    *,
    trains: bool = True,
    read_only: bool = False,
    answered: bool = True,
    pseudo: bool = False,
) -> SourceSpec:
    """Return the source that the operator has chosen.

    Args:
        settings: of this robot.
        trains: whether its examples are trained on, and not only measured.
        read_only: nothing is written to the state directory: the person who runs
            `edge-agent predict` may be another user than the agent's.
        answered: whether the frames that a person has labelled at `edge-agent label` are among
            them.
        pseudo: whether frames that no person has labelled are examples, too: those that a
            teacher has labelled, and others if the operator wants pseudo-labels.
    """
    examples, state = settings.examples, settings.state
    if examples.source == TEXTS:
        return SourceSpec(
            name=TEXTS,
            options={
                **examples.options,
                "paths": [str(path) for path in examples.paths],
                "aliases": examples.aliases,
                "held_out": examples.held_out,
                "told": "" if read_only else str(state / TOLD),
            },
        )
    if examples.source != FRAMES:
        return SourceSpec(name=examples.source, options=examples.options)
    options = {
        "paths": [str(path) for path in examples.paths],
        "kept": str(state / KEPT) if examples.spool else "",
        "answered": str(state / ANSWERED) if answered else "",
        "trained": str(state / TRAINED),
        "index": str(state / INDEX),
        "topic": examples.topic,
        "label_topic": examples.label_topic,
        "aliases": examples.aliases,
        "held_out": examples.held_out,
        "tolerance_s": examples.tolerance_s,
        "trains": trains,
        "read_only": read_only,
    }
    if pseudo and examples.pseudo_labels:
        options["pseudo"] = {
            "most": examples.pseudo_most,
            "weight": examples.pseudo_weight,
            "precision": examples.pseudo_precision,
        }
    if (state / TEACHERS).is_dir():
        weight = examples.pseudo_weight if pseudo else 0
        options["taught"] = {"folder": str(state / TEACHERS), "weight": weight}
    return SourceSpec(name=FRAMES, options=options)


def open_frames(
    paths: Sequence[str],
    *,
    kept: str = "",
    answered: str = "",
    trained: str = "",
    index: str = "",
    answers: bool = False,
    **arguments: Any,
) -> ExampleSource:
    """Open recordings of frames from JSON values; "" is no path. See ExampleStore."""
    if answers:
        raise SettingsError(
            "this fleet learns answers to instructions, and examples.source is frames; name tables "
            'of them in examples.paths, and source = "texts"'
        )
    from edge_agent.examples.example_store import ExampleStore  # not in the agent: it stays small

    return ExampleStore(
        paths=[Path(path) for path in paths],
        kept=Path(kept) if kept else None,
        answered=Path(answered) if answered else None,
        trained=Path(trained) if trained else None,
        index=Path(index) if index else None,
        **arguments,
    )

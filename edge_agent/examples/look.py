"""Look at this robot's examples as the first round would, and say whether they can be learned."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import find_bags, has_pictures, is_bag, is_live, shown
from edge_agent.data.table_paths import is_tables
from edge_agent.examples.left_out import by_kind, strange_labels, tell
from edge_agent.examples.source import ANSWERED, EXAMPLE_SOURCES, ExampleSource, source_of
from edge_agent.examples.spool.watch import FOLDER as KEPT
from edge_agent.examples.texts.text_store import TextStore
from edge_agent.robot.settings import FRAMES, TEXTS, AgentSettings
from fleet_model.command_line.app import Finding
from fleet_model.errors import FleetError, FrameError
from fleet_model.protocol.example_counts import CONCERNS, ExampleCounts

SUBJECT = "examples"
_LARGEST = "the largest box's counts"
_IF_LABELS = f"{_LARGEST} unless the fleet learns boxes"
_MOST_ADDED = 10  # labels in a command that is proposed


def look_at_examples(
    settings: AgentSettings,
    labels: Sequence[str],
    *,
    boxes: bool = False,
    answers: bool = False,
) -> list[Finding]:
    """Read every example once, like a round; nothing is written.

    Args:
        settings: of this robot.
        labels: that the fleet learns; none if that is not known, or not what examples have.
        boxes: whether boxes have these labels, and no whole frames.
        answers: whether answers to instructions are learned, and no labels.
    """
    examples = settings.examples
    if examples.source not in EXAMPLE_SOURCES:
        return [Finding(SUBJECT, "ok", f"from the source {examples.source}; not opened here")]
    if not examples.wanted:
        step = "name bags or data sets in examples.paths, or a folder in examples.spool"
        step = "name tables in examples.paths" if examples.source == TEXTS else step
        return [Finding(SUBJECT, "warn", "none are named: this robot never trains", step)]
    paths = [*examples.paths, *_kept(settings)]
    found, labelled = list[Finding](), Counter[str]()
    training = held_out = 0
    left_out, strange = Counter[str](), Counter[str]()
    lacking, has_topic = list[int](), False  # places of those without the label topic
    for path in paths:
        finding, counts = _look(settings, path, labels, boxes=boxes, answers=answers)
        lacking += [len(found)] if counts.lacks_topic else []
        has_topic = has_topic or counts.has_topic
        found.append(finding)
        labelled.update(counts.labels)
        left_out.update(counts.left_out)
        strange.update(counts.strange)
        held_out += counts.held_out
        training += counts.training
    if found and not any(one.state == "ok" for one in found):
        return found  # nothing was read, and they say why
    for place in lacking if has_topic else ():  # it is no mistake in agent.toml
        step = "its frames teach nothing: label them, or remove it"
        found[place] = replace(found[place], state="warn", next_step=step)
    if not paths:
        return [Finding(SUBJECT, "ok", f"none yet: they come from {examples.spool}")]
    # One label of boxes differs from what is around them, so it is no concern.
    different = None if boxes or answers else sum(count > 0 for count in labelled.values())
    total = ExampleCounts(training, held_out, different, dict(left_out))
    if answers:
        return [*found, *_verdict_on_answers(total)]
    return [*found, *_verdict(labels, labelled, total, strange)]


class _Counts:
    """What one path holds."""

    def __init__(self) -> None:
        self.labels, self.left_out = Counter[str](), Counter[str]()
        self.strange = Counter[str]()  # label that is like no learned one -> frames
        self.training = self.held_out = 0
        self.several = 0  # examples with boxes of several labels, of which one counts
        self.empty = 0  # examples that show nothing, where boxes are learned
        self.has_topic = self.lacks_topic = False  # the label topic: a bag of it, all of them


def _look(
    settings: AgentSettings, path: Path, labels: Sequence[str], *, boxes: bool, answers: bool
) -> tuple[Finding, _Counts]:
    counts = _Counts()
    if unopened := _unopened(path):
        return unopened, counts
    one = settings.examples.model_copy(update={"paths": (path,), "spool": None})
    alone = settings.model_copy(update={"examples": one})
    spec = source_of(alone, read_only=True, answered=False)
    source: ExampleSource | None = None
    try:
        source = spec.open(labels, boxes=boxes, answers=answers)
        for example in source.examples():
            shown = {box.label for box in example.boxes}
            counts.labels.update(shown if boxes else [example.label or ""])
            counts.held_out += example.held_out
            counts.training += not example.held_out
            counts.several += len(shown) > 1 and not boxes
            counts.empty += boxes and not shown
    except (FleetError, OSError) as error:
        counts.lacks_topic = isinstance(error, FrameError) and error.reason == WRONG_LABEL_TOPIC
        if counts.lacks_topic and source:
            counts.left_out.update(by_kind(source.left_out))
        return Finding(SUBJECT, "fail", f"{path}: {error}", _to_correct(settings, path)), counts
    counts.left_out.update(by_kind(source.left_out))
    counts.strange.update(strange_labels(source.left_out))
    if not (counts.training or counts.held_out or source.left_out):
        return Finding(SUBJECT, "warn", f"{path}: no examples in it yet", "record there"), counts
    topics = _topics(settings, path, source)
    counts.has_topic = bool(topics)
    words = f"{path}: {counts.training + counts.held_out} examples{topics}"
    return Finding(SUBJECT, "ok", words + _more(source, counts, labels)), counts


def _more(source: ExampleSource, counts: _Counts, labels: Sequence[str]) -> str:
    """Return what else is to be told of examples that can be read."""
    words = ""
    if source.left_out:
        words += f"; left out: {tell(source.left_out, getattr(source, 'places', None))}"
    if counts.empty:
        words += f"; {counts.empty} show nothing"
    if counts.several:
        words += f"; {counts.several} show several labels, {_LARGEST if labels else _IF_LABELS}"
    if renamed := getattr(source, "renamed", {}):
        words += f"; by aliases: {tell(renamed)}"
    return words


def _to_correct(settings: AgentSettings, path: Path) -> str:
    """Return what to do about a path that cannot be read."""
    if settings.examples.source == TEXTS:
        return "correct examples.paths or examples.options in agent.toml"
    if is_tables(path):
        return 'texts are read with source = "texts" in [examples] of agent.toml'
    return "correct examples.paths, topic or label_topic in agent.toml"


def _unopened(path: Path) -> Finding | None:
    """Return why there is nothing to open."""
    if is_live(path):
        step = "record bags of it into examples.spool"
        return Finding(SUBJECT, "warn", f"{shown(path)}: is live and has no labels", step)
    if not path.exists():
        return Finding(SUBJECT, "warn", f"{path}: no such file or folder yet", "record there")
    if not os.access(path, os.R_OK):
        step = "let the agent's user read it"
        return Finding(SUBJECT, "fail", f"{path}: this user may not read it", step)
    return None


def _topics(settings: AgentSettings, path: Path, source: ExampleSource) -> str:
    """Return which topics of the first bag are read, or which columns of a table."""
    if isinstance(source, TextStore):
        return f", {source.words}"
    bags = [path] if is_bag(path) else find_bags(path)
    try:
        camera = BagFrames(bags[0], settings.examples.topic).choose_topic().name if bags else ""
    except FrameError:
        return ""
    return f", camera {camera}, labels {settings.examples.label_topic}" if camera else ""


def _verdict(
    labels: Sequence[str],
    labelled: Counter[str],
    counts: ExampleCounts,
    strange: Counter[str],
) -> Iterator[Finding]:
    names = labels or sorted(labelled)
    counted = ", ".join(f"{labelled[name]} {name or 'without a label'}" for name in names)
    if not labels:
        text = (
            f"labels: {counted or 'none'}; not compared with the fleet's, which come with a model"
        )
        yield Finding(SUBJECT, "warn", text, "name the kit: edge-agent doctor --kit KIT")
        return
    absent = [name for name in labels if not labelled[name]]
    add = " ".join(shlex.quote(label) for label, _ in strange.most_common(_MOST_ADDED))
    learn = f"to learn them, on the server run `cloud-server labels add DIR {add}`" if add else ""
    none_of = f"; none of {', '.join(absent)}" if absent and counts.training else ""
    if not counts.training:
        step = f"label frames with one of: {', '.join(labels)}"
        step += f"; or, {learn}" if learn else ""
        yield Finding(SUBJECT, "fail", "cannot train: no example has a label of the fleet", step)
        return
    text = f"can train: {counts.training} to learn from, {counts.held_out} held out; "
    text += f"{counted}{none_of}"
    yield Finding(SUBJECT, "ok", text)
    for concern, numbers in counts.concerns.items():
        spell = learn or "correct the spelling"
        step = spell if concern == "unknown_labels" else "record or label more"
        yield Finding(SUBJECT, "warn", f"{CONCERNS[concern]} ({numbers})", step)


def _verdict_on_answers(counts: ExampleCounts) -> Iterator[Finding]:
    if not counts.training:
        step = "name tables of instructions with their answers in examples.paths"
        yield Finding(SUBJECT, "fail", "cannot train: no instruction has an answer", step)
        return
    text = f"can train: {counts.training} answers to learn from, {counts.held_out} held out"
    yield Finding(SUBJECT, "ok", text)
    for concern, numbers in counts.concerns.items():
        yield Finding(SUBJECT, "warn", f"{CONCERNS[concern]} ({numbers})", "write or collect more")


def _kept(settings: AgentSettings) -> list[Path]:
    """Return what the robot itself has kept: frames of the spool, frames that a person labelled."""
    if settings.examples.source != FRAMES:
        return []
    kept, answered = settings.state / KEPT, settings.state / ANSWERED
    found = [kept] if settings.examples.spool and kept.is_dir() else []
    return [*found, answered] if has_pictures(answered) else found

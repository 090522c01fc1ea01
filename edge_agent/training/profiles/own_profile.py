"""Answer a request for a profile: see groups.py for what may be in it."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_agent.training.adapted_model import started, tensors_of
from edge_agent.training.profiles.groups import Choice, Names, Note, choose, counted
from edge_agent.training.profiles.told import Told
from edge_agent.training.profiles.words import author_of, terms_of, topics_of
from edge_agent.training.trainer import Learner, NoExamplesError, encoded_rows
from fleet_model.errors import TrainingError, one_line
from fleet_model.profiles.profile import (
    GROUP,
    MIN_AUTHORS,
    MIN_RECORDS,
    Group,
    Profile,
    SourceProfile,
    pack_profile,
    told_count,
)
from fleet_model.protocol.example_counts import UNREADABLE
from fleet_model.types import PROFILE, Checkpoint, Example, Instruction, Tensor, Update

_LONGEST = 64  # characters of a source, a label
log = logging.getLogger(__name__)


def profile_reply(
    learner: Learner, checkpoint: Checkpoint, examples: Iterable[Example], sent: Path
) -> Update:
    """Return the profile of this machine's records; the same table gives the same bits.

    Args:
        learner: whose model makes embeddings.
        checkpoint: that it makes them with.
        examples: all of this machine, held out or not.
        sent: folder of what was told before.

    Raises:
        NoExamplesError: no source has enough records.
        TrainingError: this model makes no embeddings, or what was told cannot be kept.
    """
    embed = getattr(learner.model, "embeddings", None)
    if embed is None:
        raise TrainingError(
            "a profile needs a model that makes embeddings of records, as language models do"
        )
    notes: dict[str, Note] = {}
    learner = replace(learner, model=started(learner.model, checkpoint.weights))
    origin = tensors_of(learner.spec, checkpoint)
    training, held_out, *_, unreadable = encoded_rows(learner, _noting(examples, notes))
    learner.cache.end()
    found: dict[str, Tensor] = {}  # name of a record -> its embedding
    for part in filter(len, (training, held_out)):
        rows = part.answers(learner.spec.batch_size, lambda features: embed(origin, features))
        found |= {
            notes[key].name: row for key, row in zip(part.keys, rows["embedding"], strict=True)
        }
    known = [note for note in notes.values() if note.name in found]
    known.sort(key=lambda note: (note.source, note.name))
    before = Told.read(sent)
    choice = choose(known, before.last, before.ever)
    if not choice.groups:
        raise NoExamplesError(
            f"no source has {MIN_RECORDS} records of {MIN_AUTHORS} authors, of whom none has more "
            "than half, which a profile needs",
            unreadable,
        )
    before.add(choice.groups)
    before.save(sent)
    profile = _profile(choice, known, found)
    told = sum(one.whole.records for one in profile.values())
    log.info("a profile of %d sources, at least %d records", len(profile), told)
    return Update(
        kind=PROFILE,
        robot="",
        base_version=checkpoint.version,
        weights={},
        groups={GROUP: pack_profile(profile)},
        num_examples=told,
        num_steps=0,
        metrics={
            UNREADABLE: float(unreadable),
            "too_few_records": float(told_count(choice.too_few)),
            "waiting_records": float(told_count(choice.waiting)),
        },
    )


def _noting(examples: Iterable[Example], notes: dict[str, Note]) -> Iterator[Example]:
    """Pass examples on, each record once, and write down what is known of them."""
    seen = set[tuple[str, str]]()
    for example in examples:
        text, image = _said(example.raw)
        about = {name: one_line(str(value)) for name, value in example.targets.items()}
        source = about.get("source", "")[:_LONGEST] or "records"
        author = author_of(about.get("author", ""))
        # By what it says, not by its place or source: a table that is made anew, or says "board"
        # where it said "forum", has the same records.
        name = f"{_digest(text, Path(image).name)}:{_digest(author) if author else ''}"
        if (source, name) in seen:
            continue
        seen.add((source, name))
        notes[example.key] = Note(
            name=name,
            source=source,
            label=about.get("topic", "")[:_LONGEST],
            terms=terms_of(text),
            topics=topics_of(text),
        )
        yield example


def _digest(*parts: str) -> str:
    whole = "\0".join(parts).encode("utf-8", "replace")
    return hashlib.blake2b(whole, digest_size=8).hexdigest()


def _said(raw: object) -> tuple[str, str]:
    """Return the text of a record, and the name of its picture."""
    if not isinstance(raw, Instruction):
        return str(raw), ""
    texts = [*(text for _, text in raw.turns), raw.prompt, raw.answer]
    return "\n".join(filter(None, texts)), raw.image


def _profile(choice: Choice, known: Sequence[Note], found: Mapping[str, Tensor]) -> Profile:
    profile = {}
    for source, topic in choice.groups:
        if topic:
            continue
        names = choice.groups[source, ""]
        notes = [note for note in known if note.source == source and note.name in names]
        profile[source] = SourceProfile(
            whole=_group(names, found),
            topics={
                of: _group(part, found)
                for (whose, of), part in choice.groups.items()
                if whose == source and of
            },
            labels={word: told_count(n) for word, n in counted(notes, "labels").items()},
            terms={word: told_count(n) for word, n in counted(notes, "terms").items()},
        )
    return profile


def _group(names: Names, found: Mapping[str, Tensor]) -> Group:
    rows = np.stack([found[name] for name in sorted(names)])
    mean = rows.mean(0, dtype=np.float64).astype(np.float32)
    return Group(records=told_count(len(names)), mean=mean)

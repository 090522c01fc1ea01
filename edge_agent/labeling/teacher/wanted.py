"""What a teacher must be able to say: the words of the fleet that this robot learns with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_agent.robot.settings import AgentSettings
from fleet_model.bundle import MANIFEST, read_bundle
from fleet_model.durable import pointed
from fleet_model.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the fleet learns."""

    classes: tuple[str, ...]
    answer: str  # "class" or "boxes", see Task.answer
    former: Mapping[str, str] = field(default_factory=dict)  # other word -> one of the classes


def what_is_wanted(
    settings: AgentSettings, classes: Sequence[str], boxes: bool | None, teacher: str
) -> Wanted:
    """Return what this robot's model answers; without one what a person says.

    Args:
        settings: of this robot.
        classes: that a person names, for a robot without a model.
        boxes: whether these are of boxes; None: as the teacher answers.
        teacher: what the teacher answers.

    Raises:
        SettingsError: nothing names the classes, or they are named twice.
        BundleError: the manifest of the model is damaged.
    """
    aliases = settings.examples.aliases
    current = pointed(settings.state / "models" / "current").resolve()
    if (current / MANIFEST).exists():
        if classes or boxes is not None:
            raise SettingsError(
                "the model of this robot says what is learned: leave out --classes and --boxes"
            )
        task = read_bundle(current, names=()).described_task
        own = {word: task.former.get(name, name) for word, name in aliases.items()}
        former = {**task.former, **own}
        return Wanted(classes=task.classes, answer=task.answer, former=former)
    if not classes:
        raise SettingsError(
            "no model is installed yet, so nothing names the classes; name those of the fleet: "
            "--classes clear,blocked"
        )
    answer = teacher if boxes is None else "boxes" if boxes else "class"
    return Wanted(classes=tuple(dict.fromkeys(classes)), answer=answer, former=aliases)

"""Which label of the fleet each class of a file is."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from cloud_server.state.words import names
from fleet_model.errors import SettingsError

NONE = "-"  # stands for a column of the file that means nothing
MOST_CLASSES = 10_000


def read_classes(text: str) -> tuple[str, ...]:
    """Return the file's classes in order, from a list with commas or a file with a line each.

    Raises:
        SettingsError: there are none, or the file cannot be read.
    """
    file = Path(text)
    try:
        is_file = "," not in text and file.is_file()
        lines = file.read_text().splitlines() if is_file else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"--labels {text}: {why}") from None
    found = tuple(line.strip() for line in lines)
    while is_file and found and not found[-1]:
        found = found[:-1]
    if not found or not all(found) or len(found) > MOST_CLASSES:
        raise SettingsError(
            f"--labels {text[:80]}: expected the names of the file's classes in order, with commas "
            f"between them or in a file with a line for each; {NONE} stands for one that is nothing"
        )
    return found


def read_map(pairs: Sequence[str]) -> dict[str, str]:
    """Return class of the file -> label of the fleet, of CLASS=LABEL; raises SettingsError."""
    found: dict[str, str] = {}
    for pair in (one.strip() for text in pairs for one in text.split(",")):
        ours, equals, theirs = (word.strip() for word in pair.partition("="))
        if not ours or not equals or not theirs or ours in found:
            raise SettingsError(
                f"--map {pair[:80]}: expected CLASS=LABEL once for each class, as person=human"
            )
        found[ours] = theirs
    return found


def label_indices(
    classes: Sequence[str],
    labels: Sequence[str],
    renamed: Mapping[str, str],
    without: Collection[str] = (),
    *,
    drop_others: bool = False,
) -> tuple[int, ...]:
    """Return the index in `labels` of each class of the file; -1: boxes of it are left out.

    Args:
        classes: of the file, in order.
        labels: of the fleet.
        renamed: class -> label, where they differ; several classes may be one label.
        without: labels that the file is known not to find.
        drop_others: whether a class may be no label at all.

    Raises:
        SettingsError: a name is not known, or the file and the fleet differ in one that is in none
            of the arguments.
    """
    for word, known, flag in (
        *((name, classes, "--map") for name in renamed),
        *((name, labels, "--map") for name in renamed.values()),
        *((name, labels, "--without") for name in without),
    ):
        if word not in known:
            whose = "class of the file" if known is classes else "label of the fleet"
            raise SettingsError(f"{flag}: {word!r} is no {whose}; there are: {names(known)}")
    wanted = [renamed.get(name, name) for name in classes]
    others = [n for n, label in zip(classes, wanted, strict=True) if label not in labels]
    others = [name for name in others if name != NONE]
    if others and not drop_others:
        raise SettingsError(
            f"the file finds {names(others)}, and the fleet's labels are {names(labels)}: name "
            f"what they are with {_example(others[0], labels)}, or leave out boxes of all other "
            "classes with --drop-others"
        )
    never = [label for label in labels if label not in wanted and label not in without]
    if never:
        raise SettingsError(
            f"no class of the file is {names(never)}: name it with "
            f"--map CLASS={never[0]}, or, if it cannot find them, --without {','.join(never)}"
        )
    return tuple(labels.index(name) if name in labels else -1 for name in wanted)


def _example(name: str, labels: Sequence[str]) -> str:
    close = get_close_matches(name.casefold(), [one.casefold() for one in labels], n=1)
    label = next((one for one in labels if close and one.casefold() == close[0]), labels[0])
    return f"--map {name}={label}"

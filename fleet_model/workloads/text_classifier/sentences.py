"""Texts that exports are checked with: the operator's own, or a few that come with the workload."""

from collections.abc import Iterator
from pathlib import Path

from fleet_model.errors import SettingsError

MOST = 200  # texts of a folder
# Short and long ones: lengths change what attention sees.
SHIPPED = (
    "The printer on the third floor is out of paper again.",
    "Thanks, it works now!",
    "I cannot sign in since this morning. The page says that my password is wrong, although I have "
    "not changed it, and the link to set a new one leads to an empty page.",
    "Great service, I would order from you again.",
    "My parcel never came.",
    "Please send an invoice for the order of last week to our new address.",
    "The film begins slowly, but its second half is among the best that I have seen this year.",
    "Not worth the money.",
    "How do I connect two screens to the laptop that I got on Monday?",
    "The battery is empty after two hours, the fan is loud, and the support does not answer.",
    "When does the canteen close on Fridays?",
    "A door of the cold store does not close.",
    "Robot 7 stops in front of the lift and asks for help, about every third time.",
    "Lovely acting, weak story.",
    "The new version is faster, yet it forgets my settings whenever I restart it.",
    "ok",
)


def sentences(folder: Path | None) -> Iterator[str]:
    """Yield texts: each line of the .txt files of a folder, or the shipped ones.

    Raises:
        SettingsError: the folder is missing or holds no text.
    """
    if folder is None:
        yield from SHIPPED
        return
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    lines: list[str] = []
    for file in files:
        try:
            found = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--calibration {folder}: {file.name}: {error}") from None
        lines += [line.strip() for line in found if line.strip()]
    if not lines:
        raise SettingsError(
            f"--calibration {folder}: expected a folder of .txt files with a text in each line"
        )
    yield from lines[:MOST]

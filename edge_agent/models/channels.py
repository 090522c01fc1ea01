"""Which version and which trainer belong to each channel that this robot has followed.

  <models>/channels/stable           -> ../versions/000005-<manifest>, the active one
  <models>/channels/stable.previous  -> ../versions/000004-<manifest>
  <models>/channels/stable.trainer   -> ../trainers/<sha256>-<part>, the last one that trained

Versions and trainers are named by content, so channels share what they have in common. See
docs/decisions/0014-state-per-channel.md.
"""

from collections.abc import Iterator
from pathlib import Path

from fleet_model.durable import make_directory, point_durably, pointed

PREVIOUS, TRAINED = ".previous", ".trainer"  # no channel has a dot in its name


class Channels:
    """The pointers of all channels; `channel` is the one that is followed now."""

    def __init__(self, models: Path, channel: str) -> None:
        self._models, self.folder = models, models / "channels"
        self._link = self.folder / channel

    def active(self) -> str:
        """Return the folder name of the followed channel's version; "" if it has none."""
        return named(self._link)

    def previous(self) -> str:
        """Return the folder name of the version to go back to; "" if there is none."""
        return named(self._beside(PREVIOUS))

    def activate(self, version: str, good: str = "") -> None:
        """Make a complete version the followed channel's.

        Args:
            version: its folder name.
            good: what becomes the previous version; "": the one that was active before.
        """
        before = self.active()
        if before == version:
            return
        make_directory(self.folder)
        if good or before:
            point_durably(self._beside(PREVIOUS), f"../versions/{good or before}")
        point_durably(self._link, f"../versions/{version}")

    def go_back(self) -> None:
        """Make the previous version the followed channel's again."""
        point_durably(self._link, f"../versions/{self.previous()}")

    def train_with(self, trainer: str) -> None:
        """Make a complete trainer the followed channel's."""
        link = self._beside(TRAINED)
        if named(link) != trainer:
            make_directory(self.folder)
            point_durably(link, f"../trainers/{trainer}")

    def versions(self) -> set[str]:
        """Return the folder names of every channel's active and previous version."""
        return {named(link) for link in self._links() if link.suffix != TRAINED}

    def trainers(self) -> set[str]:
        """Return the folder names of every channel's trainer."""
        return {named(link) for link in self._links() if link.suffix == TRAINED}

    def adopt(self, version: str) -> None:
        """Give the followed channel what a robot without pointers has: an older agent ran here.

        The version's pointer comes last: until it is there, this is done again.
        """
        if any(not link.suffix for link in self._links()):
            return
        folder = self._models / "trainers"
        for trainer in sorted(folder.iterdir()) if folder.is_dir() else ():  # it kept only one
            self.train_with(trainer.name)
        self.activate(version)

    def _beside(self, suffix: str) -> Path:
        return self._link.with_name(self._link.name + suffix)

    def _links(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (link for link in self.folder.iterdir() if not link.name.startswith("."))


def named(link: Path) -> str:
    """Return the name of the folder that a pointer names; "" if there is no pointer."""
    target = pointed(link)
    return target.resolve().name if target != link or link.is_symlink() else ""

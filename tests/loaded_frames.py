"""Frames of a bag or a live topic, without labels."""

from fleet_model.errors import FrameError


def frames_of(source, damage):
    """Yield every frame that loads; the others are added to `damage` by their reason."""
    for entry in source.entries(damage):
        try:
            frame = entry.load()
        except FrameError as error:
            damage.add(error.reason, str(error))
        else:
            yield frame

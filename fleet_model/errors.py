"""Every error raised on purpose, with the exit code that the command lines end with.

error                exit   raised when
FleetError              1   base class, never raised itself
SettingsError           2   a setting, flag or plug-in name is missing or wrong
BundleError             3   a bundle, a backup or a file of one is damaged, missing or does not fit
UpdateError             4   an update or a request between robot and server does not fit
FrameError              5   a bag, image or label cannot be read
RefusedError            6   the server does not know this robot or its proof, or an admin credential
ConnectionFailed        7   the other side cannot be reached, or its certificate is not trusted
CheckpointError         8   a checkpoint is damaged or does not fit the workload
ExportError             9   a model cannot be exported, or the exported file does not match it
RoundError             10   a round or run could not be closed
TrainingError          11   local training failed; nothing is sent
StorageError           12   this machine's disk is full, read-only or damaged
LossError              13   done, but a part of the input was damaged and is left out
StoppedError           14   the operator stopped a run; what it has closed stays
BusyError              15   a robot does not want to train now; nothing is sent
WithheldError          16   a run has finished, and its model is not published
TrustError             17   a model is not signed as it should be, or what is signed is out of date
"""

import re

_NUMBER = re.compile(r"\[Errno -?\d+\] ")


class FleetError(Exception):
    """Base class: the command lines print the message and exit with `exit_code`.

    Many messages quote an error of the operating system: the words of it are kept, its number is
    nothing that a person needs.
    """

    exit_code = 1
    # Raised by a plug-in's code, in another process: its words may name what is on this machine's
    # disk, and stay here.
    foreign = False

    def __str__(self) -> str:
        return _NUMBER.sub("", super().__str__())


class SettingsError(FleetError):
    """A setting, flag or plug-in name is missing or wrong."""

    exit_code = 2


class BundleError(FleetError):
    """A bundle or one of its files is damaged, missing or made for another workload."""

    exit_code = 3


class UpdateError(FleetError):
    """An update or a request between robot and server does not fit."""

    exit_code = 4


class FrameError(FleetError):
    """A bag, image or label cannot be read.

    `reason` names the kind of damage in a few words that are the same for every frame ("cut jpeg",
    "short data"): summaries count by it.
    """

    exit_code = 5

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class RefusedError(FleetError):
    """The other side does not accept who is asking."""

    exit_code = 6


class ConnectionFailed(FleetError):  # noqa: N818  (a state of the network, named as users say it)
    """The other side cannot be reached, or its certificate is not trusted."""

    exit_code = 7


class CheckpointError(FleetError):
    """A checkpoint is damaged or does not fit the workload."""

    exit_code = 8


class ExportError(FleetError):
    """A model cannot be exported, or the exported file does not match it."""

    exit_code = 9


class RoundError(FleetError):
    """A round or run could not be closed."""

    exit_code = 10


class TrainingError(FleetError):
    """Local training failed; nothing is sent."""

    exit_code = 11


class StorageError(FleetError):
    """This machine's disk is full, read-only or damaged."""

    exit_code = 12


class LossError(FleetError):
    """Done, but a part of the input was damaged and is left out; the summary says what."""

    exit_code = 13


class StoppedError(FleetError):
    """The operator stopped a run; what it has closed stays, and it can be resumed."""

    exit_code = 14


class BusyError(FleetError):
    """A robot does not want to train now; nothing is sent."""

    exit_code = 15


class WithheldError(FleetError):
    """A run has finished, and the gate holds its model back."""

    exit_code = 16


class TrustError(FleetError):
    """A model is not signed by whom it should be, or what is signed is out of date."""

    exit_code = 17


def one_line(text: str) -> str:
    """Escape what could begin a new line, move a cursor or turn the direction of writing.

    The one place that makes words of others - robots, servers, files - safe to be shown.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

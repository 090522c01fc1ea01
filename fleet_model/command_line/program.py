"""What both programs do before anything is loaded: they speak UTF-8, and Ctrl-C ends them silently.

Loading takes some tenths of a second, and an interrupt in there would be told with the import that
it met. Without UTF-8, as under LC_ALL=C, a label could be neither kept nor compared.
"""

import os
import signal
import sys

INTERRUPTED = 130  # as a shell has it


def begin() -> None:
    """Do it; call `loaded` when all is imported."""
    if sys.getfilesystemencoding() == "ascii":  # Python chose not to be in UTF-8: it was told so
        os.environ["PYTHONUTF8"] = "1"  # for child processes, too
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _end)


def loaded() -> None:
    """Let Ctrl-C be an exception again: a command may have something to tidy up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    os._exit(INTERRUPTED)

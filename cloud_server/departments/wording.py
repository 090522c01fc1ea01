"""Numbers of tokens as a text that grows, up to where it is to stop."""

from collections.abc import Callable, Sequence

_CUT = "\N{REPLACEMENT CHARACTER}"  # a character of which further tokens are needed


class GrowingText:
    """One answer."""

    def __init__(self, text: Callable[[list[int]], str], stops: Sequence[str]) -> None:
        """Begin with nothing.

        Args:
            text: numbers of tokens -> their text.
            stops: the text ends before the first of these.
        """
        self._text, self._stops = text, [stop for stop in stops if stop]
        self._numbers: list[int] = []
        self._whole = self._said = ""
        self.stopped = False

    @property
    def tokens(self) -> int:
        """Return how many have come."""
        return len(self._numbers)

    @property
    def whole(self) -> str:
        """Return the text until now."""
        return self._whole

    def add(self, number: int) -> str:
        """Take one more token; return what is certain now and was not before."""
        self._numbers.append(number)
        self._whole = self._text(self._numbers)
        places = [at for stop in self._stops if (at := self._whole.find(stop)) >= 0]
        if places:
            self._whole, self.stopped = self._whole[: min(places)], True
        if not self._whole.startswith(self._said):  # the end tells
            return ""
        return self._send(len(self._whole) if self.stopped else self._certain())

    def end(self) -> str:
        """Return what was kept back."""
        return self._send(len(self._whole))

    def _send(self, until: int) -> str:
        piece = self._whole[len(self._said) : until]
        self._said += piece
        return piece

    def _certain(self) -> int:
        """Return up to where nothing may change: no cut character, no beginning of a stop."""
        until = len(self._whole.rstrip(_CUT))
        for stop in self._stops:
            for length in range(min(len(stop) - 1, until), 0, -1):
                if self._whole[:until].endswith(stop[:length]):
                    until -= length
                    break
        return until

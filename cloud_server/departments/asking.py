"""One request: its texts as tokens, within the bounds, then the answers of its department."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud_server.departments.answers import AskError, Text
from cloud_server.departments.bodies import Choices
from cloud_server.departments.engine import Answer, Engine, Wanted
from cloud_server.departments.table import Departments, Served
from cloud_server.departments.wording import GrowingText
from fleet_model.errors import BusyError, FleetError, FrameError
from fleet_model.types import Instruction


class Tokens(Protocol):
    """A tokenizer with its chat template, as causal_lm.conversation has it."""

    def numbers(self, one: Instruction) -> tuple[list[int], list[int]]:
        """Return what is asked as tokens, and the answer; raises FrameError."""
        ...

    def text(self, numbers: list[int]) -> str:
        """Return tokens as a text."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of each text, in tokens."""

    context: int  # with what it goes on with
    usual_new: int  # where nothing is said


@dataclass(frozen=True, slots=True)
class Piece:
    """More of one of the texts."""

    index: int
    text: str
    ended: Text | None  # with the last one


class Asking:
    """Texts under way, of one department; close it when done."""

    def __init__(
        self, served: Served, answers: Sequence[tuple[int, Answer]], text: Callable[[], GrowingText]
    ) -> None:
        self.served, self._answers, self._text = served, answers, text

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the texts, one after the other; all are computed at once.

        Raises:
            AskError: one could not be computed.
        """
        for index, (asked, answer) in enumerate(self._answers):
            growing = self._text()
            try:
                async for piece in answer:
                    more = "" if piece.token is None else growing.add(piece.token)
                    ends = "stop" if growing.stopped else piece.ends
                    if ends:
                        more += growing.end()
                        yield Piece(index, more, Text(growing.whole, ends, asked, growing.tokens))
                        break
                    if more:
                        yield Piece(index, more, None)
            except FleetError as error:
                raise AskError(503, str(error)) from None
            finally:
                answer.close()

    async def texts(self) -> list[Text]:
        """Return the whole texts; raises AskError as `pieces`."""
        return [piece.ended async for piece in self.pieces() if piece.ended is not None]

    def close(self) -> None:
        """Leave undone what is not done."""
        for _, answer in self._answers:
            answer.close()


class Desk:
    """Takes requests."""

    def __init__(
        self, departments: Departments, engine: Engine, tokens: Tokens, bounds: Bounds
    ) -> None:
        self._departments, self._engine = departments, engine
        self._tokens, self._bounds = tokens, bounds

    def begin(
        self, name: str, asked: Sequence[Instruction], choices: Choices, most: int | None
    ) -> Asking:
        """Let the department's adapter of now go on with texts.

        Args:
            name: of the department.
            asked: texts, or conversations.
            choices: how they go on.
            most: new tokens of each; None: as usual, or fewer where there is no room.

        Raises:
            AskError: 404 no such department, 400 too long, 429 too many, 503 no adapter.
        """
        served = self._of(name)
        ids = [self._ids(one, most) for one in asked]
        answers: list[tuple[int, Answer]] = []
        try:
            for one in ids:
                room = self._bounds.context - len(one)
                wanted = Wanted(
                    adapter=served.adapter.key,
                    ids=one,
                    most=min(self._bounds.usual_new, room) if most is None else most,
                    temperature=choices.temperature or 0.0,
                    top_p=1.0 if choices.top_p is None else choices.top_p,
                    seed=choices.seed,
                )
                answers.append((len(one), self._engine.begin(wanted)))
        except FleetError as error:
            for _, answer in answers:
                answer.close()
            busy = isinstance(error, BusyError)
            raise AskError(429 if busy else 503, str(error)) from None
        return Asking(served, answers, lambda: GrowingText(self._tokens.text, choices.stops))

    def _of(self, name: str) -> Served:
        served = self._departments.served.get(name)
        if served is not None:
            return served
        if name in self._departments.refused:
            why = self._departments.refused[name].why
            raise AskError(503, f"department {name} has no adapter that can be used: {why}")
        raise AskError(
            404, f"there is no department {name[:80]!r}; GET /v1/models lists them", "model"
        )

    def _ids(self, one: Instruction, most: int | None) -> list[int]:
        try:
            ids, _ = self._tokens.numbers(one)
        except FrameError as error:
            raise AskError(400, str(error), "messages") from None
        if not ids:
            raise AskError(400, "nothing is asked: the prompt has no token", "prompt")
        context = self._bounds.context
        if len(ids) + (most or 1) > context:
            more = f" and {most} new ones" if most else ""
            raise AskError(
                400,
                f"{len(ids)} tokens are asked{more}; the context is {context} tokens",
                "messages" if one.turns else "prompt",
                "context_length_exceeded",
            )
        return list(ids)

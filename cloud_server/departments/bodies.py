"""What is asked, as OpenAI's clients write it, and in the plain form.

A field that would change the answer, and is not known here, is refused by its name: nobody gets
another answer than the one asked for, without a word.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.departments.answers import AskError
from fleet_model.settings import explain
from fleet_model.types import Instruction

_MOST_TEXTS, _MOST_STOPS = 16, 4
# Fields that are taken, and what they must be: as if they were not there.
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1, None),
    "best_of": (1, None),
    "echo": (False, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "suffix": ("", None),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "functions": ([], None),
    "tool_choice": ("none", "auto", None),
    "function_call": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
}
# They say who asks, or where it is kept; an answer is the same with them.
_IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Choices(BaseModel):
    """How a text goes on."""

    model_config = ConfigDict(extra="allow")

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None

    @property
    def stops(self) -> list[str]:
        """Return the texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None


class _Streamed(Choices):
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Return whether the last event of a stream is to tell the numbers of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Completions(_Streamed):
    """POST /v1/completions."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=_MOST_TEXTS)]

    def asked(self) -> list[Instruction]:
        """Return the texts that are to go on."""
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [Instruction(prompt=text) for text in texts]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @property
    def text(self) -> str:
        """Return what is said."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]


class ChatCompletions(_Streamed):
    """POST /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def asked(self) -> list[Instruction]:
        """Return the conversation that is to be answered."""
        return [conversation(self.messages)]


class Complete(Choices):
    """POST /departments/NAME/complete: one of the three."""

    prompt: str | None = None
    instruction: str | None = None
    messages: Messages | None = None

    def asked(self) -> list[Instruction]:
        """Return what is to go on, or to be answered; raises AskError."""
        given = [one for one in (self.prompt, self.instruction, self.messages) if one is not None]
        if len(given) != 1:
            raise AskError(400, "give one of prompt, instruction, messages", "prompt")
        if self.messages is not None:
            return [conversation(self.messages)]
        if self.instruction is not None:
            return [Instruction(turns=(("user", self.instruction),))]
        return [Instruction(prompt=self.prompt or "")]


Body = TypeVar("Body", bound=Choices)


def read_body(kind: type[Body], content: bytes) -> Body:
    """Return a request's body; raises AskError, which names the field."""
    try:
        body = kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise AskError(400, "the body is no JSON object") from None
        keys, words = explain(error, kind, show=False)
        name = ".".join(map(str, keys)) or None
        raise AskError(400, f"{name or 'the body'}: {words}", name) from None
    for name, value in (body.model_extra or {}).items():
        if name in _IGNORED or any(value == one for one in _NEUTRAL.get(name, ())):
            continue
        what = f"only {_NEUTRAL[name][0]!r} is" if name in _NEUTRAL else "is not"
        raise AskError(400, f"{name[:60]}: {what} supported here", name[:60])
    if len(body.stops) > _MOST_STOPS or not all(body.stops):
        raise AskError(400, f"stop: expected one to {_MOST_STOPS} texts", "stop")
    return body


def conversation(messages: Sequence[Message]) -> Instruction:
    """Return messages as the tokenizer's chat template knows them; raises AskError."""
    if messages[-1].role == "assistant":
        raise AskError(
            400, "messages: the last one is the assistant's; nothing is asked", "messages"
        )
    return Instruction(turns=tuple((_ROLES[one.role], one.text) for one in messages))

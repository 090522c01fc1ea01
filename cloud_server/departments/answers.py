"""What is answered, as OpenAI's clients read it."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

# Status -> type and code as OpenAI has them.
_KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    405: ("invalid_request_error", None),
    413: ("invalid_request_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
RETRY_AFTER_S = 1


class AskError(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str = "") -> None:
        """Say why.

        Args:
            status: of HTTP.
            message: for people.
            param: the field that is wrong.
            code: as programs know it; "": the usual one of the status.
        """
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def as_json(self) -> dict[str, Any]:
        """Return it as OpenAI's clients read it."""
        kind, usual = _KINDS.get(self.status, ("server_error", None))
        told = {"message": str(self), "type": kind, "param": self.param}
        return {"error": {**told, "code": self.code or usual}}

    def response(self) -> JSONResponse:
        """Return the answer of HTTP."""
        headers = {429: {"Retry-After": str(RETRY_AFTER_S)}, 401: {"WWW-Authenticate": "Bearer"}}
        return JSONResponse(self.as_json(), self.status, headers.get(self.status))


@dataclass(frozen=True, slots=True)
class Text:
    """One text that has come to its end."""

    text: str
    ends: str  # "stop" or "length"
    asked: int  # tokens
    tokens: int  # new ones


class Answers:
    """The answers of one request, whole or by and by."""

    def __init__(self, department: str, adapter: str, *, chat: bool) -> None:
        self._chat = chat
        self._kind = "chat.completion" if chat else "text_completion"
        self._about = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": department,
            "system_fingerprint": adapter[:12],
        }

    def whole(self, texts: Sequence[Text]) -> dict[str, Any]:
        """Return the answer in one."""
        choices = []
        for index, one in enumerate(texts):
            said: dict[str, Any] = {"text": one.text}
            if self._chat:
                said = {"message": {"role": "assistant", "content": one.text, "refusal": None}}
            choices.append({"index": index, **said, "finish_reason": one.ends, "logprobs": None})
        return {**self._about, "object": self._kind, "choices": choices, "usage": usage(texts)}

    def event(self, index: int, piece: str, ends: str = "", *, first: bool = False) -> bytes:
        """Return a piece of a text as an event."""
        said: dict[str, Any] = {"text": piece}
        if self._chat:
            role = {"role": "assistant"} if first else {}
            said = {"delta": {**role, **({"content": piece} if piece or first else {})}}
        choice = {"index": index, **said, "finish_reason": ends or None, "logprobs": None}
        return self._event([choice])

    def last_event(self, texts: Sequence[Text]) -> bytes:
        """Return the event that tells the numbers of tokens."""
        return self._event([], usage=usage(texts))

    def _event(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> bytes:
        kind = f"{self._kind}.chunk" if self._chat else self._kind
        return event({**self._about, "object": kind, "choices": choices, **more})


def event(told: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def usage(texts: Sequence[Text]) -> dict[str, int]:
    """Return the numbers of tokens."""
    asked, new = sum(one.asked for one in texts), sum(one.tokens for one in texts)
    return {"prompt_tokens": asked, "completion_tokens": new, "total_tokens": asked + new}

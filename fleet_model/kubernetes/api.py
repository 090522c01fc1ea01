"""The few requests to a cluster's API that this project needs: get, list, apply, watch.

The official client takes 126 MB and 20 more packages: more than the rest of a robot that only runs
models. All that is sent may be sent twice: reads, and server-side apply.
"""

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote

import httpx

from fleet_model.errors import ConnectionFailed, RefusedError, UpdateError, one_line
from fleet_model.kubernetes.connection import Connection

MAX_ANSWER = 16_000_000  # bytes; a list of many objects has some megabytes
MAX_EVENT = 4_000_000  # one object in a watch; etcd takes 1.5 MB
MAX_WORDS = 600  # of an error, as the API says it
AGAIN = (429, 502, 503, 504)
UNKNOWN_FIELD = (
    "field not declared in schema"  # a 500 of server-side apply, though it is no fault of it
)
LONGEST_WAIT_S = 10.0  # that a server may ask for
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")
APPLY = "application/apply-patch+yaml"

Json = dict[str, Any]


class ConflictError(UpdateError):
    """Somebody else has set a field that is to be applied, or the object has changed."""


class GoneError(UpdateError):
    """The resource version of a watch is too old: list again."""


class Cluster:
    """One cluster's API; a context manager, for one thread."""

    def __init__(self, connection: Connection) -> None:
        """Ask nothing yet."""
        patience = connection.patience
        self.name = connection.name
        self.server_time: str | None = None  # `Date` of the last answer: robots' clocks differ
        self._connection, self._patience = connection, patience
        self._random = random.Random()  # noqa: S311  (not for secrets)
        self._stop = threading.Event()
        self._resources: dict[str, dict[str, Json]] = {}
        self._client = httpx.Client(
            base_url=connection.server.rstrip("/") + "/",
            verify=connection.tls if connection.tls is not None else True,
            proxy=connection.proxy,
            trust_env=connection.trust_env and connection.proxy is None,
            headers={"Accept": "application/json", "User-Agent": "fleetlearn"},
        )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._stop.set()
        self._client.close()

    def version(self) -> str:
        """Return the cluster's version: a robot that hangs is found out by its first word."""
        answer = self.request("GET", "version", silence_s=self._patience.connect_s)
        return str(answer.get("gitVersion", "unknown"))

    def get(self, path: str) -> Json | None:
        """Return an object or a list; None if there is none."""
        try:
            return self.request("GET", path)
        except _NotFoundError:
            return None

    def apply(
        self, path: str, obj: Json, manager: str, *, force: bool = False, dry_run: bool = False
    ) -> Json:
        """Apply an object on the server's side: only the fields in it become the manager's.

        Raises:
            ConflictError: another manager owns a field, and not `force`.
            UpdateError: the API does not take the object.
        """
        params = {"fieldManager": manager, "fieldValidation": "Strict"}
        params |= {"force": "true"} if force else {}
        params |= {"dryRun": "All"} if dry_run else {}
        return self.request("PATCH", path, params=params, body=obj)

    def resource(self, api_version: str, kind: str) -> Json | None:
        """Return how a kind is called in paths, and whether it is namespaced; None: unknown."""
        if api_version not in self._resources:
            prefix = "api" if "/" not in api_version else "apis"
            found = self.get(f"{prefix}/{api_version}")
            if found is None:
                return None  # asked again: a definition may be on its way
            self._resources[api_version] = {
                one["kind"]: one for one in found.get("resources", ()) if "/" not in one["name"]
            }
        return self._resources[api_version].get(kind)

    def forget_resources(self) -> None:
        """Ask again what the cluster knows: a definition was applied."""
        self._resources.clear()

    def watch(self, path: str, resource_version: str, for_s: float) -> Iterator[tuple[str, Json]]:
        """Yield type and object of what changes, until the server ends it after about `for_s`.

        Raises:
            GoneError: the version is too old.
            ConnectionFailed: the connection was lost, or says nothing for longer than `for_s`.
        """
        params = {"watch": "true", "allowWatchBookmarks": "true"}
        params |= {"resourceVersion": resource_version, "timeoutSeconds": str(int(for_s))}
        timeout = httpx.Timeout(for_s + self._patience.silence_s, connect=self._patience.connect_s)
        try:
            request = self._built("GET", path, params, None, timeout)
            answer = self._client.send(request, stream=True)
            with closing(answer):
                if answer.status_code != 200:
                    self._raise(answer.status_code, self._content(answer))
                for line in _lines(answer, self.name):
                    event = _parsed(line, self.name)
                    if event.get("type") == "ERROR":
                        self._raise_status(event.get("object") or {})
                    yield str(event.get("type")), event.get("object") or {}
        except httpx.HTTPError as error:
            raise self._lost(error, for_s + self._patience.silence_s) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Json | None = None,
        silence_s: float | None = None,
    ) -> Json:
        """Return what the API answers; what fails at once is tried again.

        Args:
            method: of HTTP.
            path: below the server's.
            params: of the query.
            body: an object to apply.
            silence_s: without a byte; None: as the connection's patience has it.

        Raises:
            RefusedError: who asks is not known, or may not do it.
            ConnectionFailed: there is no answer, or the cluster cannot give one now.
            ConflictError, UpdateError: it does not take what was sent.
        """
        silence_s = self._patience.silence_s if silence_s is None else silence_s
        timeout = httpx.Timeout(silence_s, connect=self._patience.connect_s)
        for left in range(self._patience.retries, -1, -1):
            try:
                code, content, after_s = self._once(method, path, params, body, timeout)
            except (httpx.TimeoutException, httpx.UnsupportedProtocol) as error:
                raise self._lost(error, silence_s) from None
            except httpx.HTTPError as error:
                if not left or _is_tls(error):
                    raise self._lost(error, silence_s) from None
                after_s = 0.0
            else:
                if code in (200, 201):
                    return _parsed(content, self.name)
                renewed = code == 401 and left and self._connection.credential.renew()
                if not renewed and (code not in AGAIN or not left):
                    self._raise(code, content)
            tried = self._patience.retries - left
            wait_s = 0.2 * 2**tried * self._random.uniform(0.5, 1.5)
            self._stop.wait(max(wait_s, min(after_s, LONGEST_WAIT_S)))
        raise AssertionError("the last try returns or raises")

    def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Json | None,
        timeout: httpx.Timeout,
    ) -> tuple[int, bytes, float]:
        request = self._built(method, path, params, body, timeout)
        answer = self._client.send(request, stream=True)
        with closing(answer):
            self.server_time = answer.headers.get("Date")
            after = answer.headers.get("Retry-After", "")
            content = self._content(answer)
            return answer.status_code, content, float(after) if after.isdigit() else 0.0

    def _built(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Json | None,
        timeout: httpx.Timeout,
    ) -> httpx.Request:
        headers = dict(self._connection.credential.headers())
        if body is not None:
            headers["Content-Type"] = APPLY
        name = self._connection.tls_name
        return self._client.build_request(
            method,
            path.lstrip("/"),
            params=params,
            content=None if body is None else json.dumps(body, allow_nan=False).encode(),
            headers=headers,
            timeout=timeout,
            extensions={"sni_hostname": name} if name else {},
        )

    def _content(self, answer: httpx.Response) -> bytes:
        """Read an answer of bounded size in bounded time."""
        end, parts, size = time.monotonic() + self._patience.answer_s, [], 0
        for part in answer.iter_bytes():
            size += len(part)
            parts.append(part)
            if size > MAX_ANSWER:
                raise ConnectionFailed(f"{self.name}: answers more than {MAX_ANSWER // 10**6} MB")
            if time.monotonic() > end:
                raise ConnectionFailed(
                    f"{self.name}: the answer is not complete after {self._patience.answer_s:g} s"
                )
        return b"".join(parts)

    def _lost(self, error: httpx.HTTPError, silence_s: float) -> ConnectionFailed:
        server, patience = self._connection.server, self._patience
        if isinstance(error, httpx.ConnectTimeout):
            words = f"does not take a connection in {patience.connect_s:g} s; is the robot on?"
        elif isinstance(error, httpx.TimeoutException):
            words = f"is silent for {silence_s:g} s"
        elif any(one in str(error) for one in NO_TLS):
            words = "does not speak TLS; check the cluster's address"
        elif "ALERT" in str(error).upper():  # what the other side of TLS says
            words = f"does not take the kubeconfig's client certificate ({_tls_words(error)})"
        elif _is_tls(error):
            words = f"is not trusted ({_tls_words(error)}); check the cluster's authority"
        else:
            words = f"cannot be reached ({one_line(str(error)) or type(error).__name__})"
        return ConnectionFailed(f"{self.name}: {server} {words}")

    def _raise(self, code: int, content: bytes) -> None:
        try:
            status = json.loads(content)
            known = isinstance(status, dict) and status.get("kind") == "Status"
        except (ValueError, RecursionError):
            known = False
        self._raise_status(status if known else {"code": code, "message": _no_status(code)})

    def _raise_status(self, status: Json) -> None:
        """Raise what a Status object of the API says."""
        code = status.get("code")
        words = one_line(str(status.get("message") or status.get("reason") or "no reason given"))
        words = words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}..."
        said = f"{self.name}: {words}"
        if code in (401, 403):
            who = "who asks is not known" if code == 401 else "who asks may not do this"
            raise RefusedError(f"{self.name}: {who} ({words})")
        if code == 404:
            raise _NotFoundError(said)
        if code == 409:
            raise ConflictError(said)
        if code == 410:
            raise GoneError(said)
        if isinstance(code, int) and not 400 <= code < 500 and UNKNOWN_FIELD not in words:
            raise ConnectionFailed(f"{self.name}: answers {code} ({words})")
        if code == 429:
            raise ConnectionFailed(f"{self.name}: answers {code} ({words})")
        raise UpdateError(said)


class _NotFoundError(UpdateError):
    """There is no such object, kind or namespace."""


def path_of(resource: Json, api_version: str, namespace: str | None, name: str = "") -> str:
    """Return the path of an object, or of all of its kind.

    Args:
        resource: as `Cluster.resource` returns it.
        api_version: e.g. apps/v1.
        namespace: None: of the whole cluster.
        name: "": all of them.
    """
    parts = ["api" if "/" not in api_version else "apis", *api_version.split("/")]
    if resource["namespaced"] and namespace is not None:
        parts += ["namespaces", namespace]
    parts += [resource["name"], *([name] if name else [])]
    return "/".join(quote(part, safe="") for part in parts)


def _lines(answer: httpx.Response, name: str) -> Iterator[bytes]:
    """Yield the lines of a stream as they come; raises ConnectionFailed for one without an end."""
    rest = b""
    for part in answer.iter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > MAX_EVENT:
            raise ConnectionFailed(f"{name}: an event has more than {MAX_EVENT // 10**6} MB")
    if rest.strip():
        raise ConnectionFailed(f"{name}: the connection ended within an event")


def _parsed(content: bytes, name: str) -> Json:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionFailed(f"{name}: does not answer as a Kubernetes API; check its address")
    return answer


def _no_status(code: int) -> str:
    return f"the answer is {code}, and not by a Kubernetes API; check the cluster's address"


def _is_tls(error: httpx.HTTPError) -> bool:
    """Return whether TLS refuses the other side; a connection that was cut may come back."""
    return "SSL" in str(error) and "EOF" not in str(error)


def _tls_words(error: httpx.HTTPError) -> str:
    """Return what OpenSSL says, without its codes."""
    words = str(error).rpartition("]")[2] or str(error)
    return one_line(
        words.partition("(_ssl")[0].replace("certificate verify failed:", "").strip(" :")
    )

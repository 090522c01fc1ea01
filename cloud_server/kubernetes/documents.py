"""Manifests of an operator's files, judged as strictly as can be before any robot is asked."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.kubernetes.meaning import wrong_meanings
from cloud_server.kubernetes.schemas import wrong_fields
from fleet_model.errors import SettingsError, one_line
from fleet_model.kubernetes.robot_model import (
    API_VERSION,
    GROUP,
    KIND,
    NAMESPACE,
    ObjectName,
    RobotModelSpec,
)
from fleet_model.settings import Expected, explain

MAX_BYTES, MAX_VALUES = 4_000_000, 200_000  # of a file; of values in it, aliases followed
STDIN = Path("-")
# What a cluster adds to an object: such a file was read from one.
OF_THE_CLUSTER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
Json = dict[str, Any]
Texts = Annotated[dict[str, str], Expected('names with texts, e.g. {camera: "front"}')]


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file."""

    file: Path
    number: int  # from 1, empty documents not counted
    content: Json

    @property
    def kind(self) -> str:
        """Return its kind."""
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.content["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Return its namespace, "" if it names none."""
        return str(self.content["metadata"].get("namespace", ""))

    @property
    def is_robot_model(self) -> bool:
        """Return whether it is our own kind."""
        return self.kind == KIND and str(self.content["apiVersion"]).startswith(f"{GROUP}/")

    def said(self, field: str, words: str) -> str:
        """Return what is wrong with a field of it."""
        file = "stdin" if self.file == STDIN else self.file
        where = f"{file}: document {self.number} ({self.kind} {self.name})"
        return ": ".join(filter(None, (where, field, words)))


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: ObjectName
    namespace: ObjectName = NAMESPACE
    labels: Texts = {}
    annotations: Texts = {}


class _RobotModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    api: Literal["robots.fleetlearn/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["RobotModel"]
    metadata: _Metadata
    spec: RobotModelSpec


def read_documents(files: Sequence[Path]) -> list[Document]:
    """Return all objects of the files, in their order; `-` is stdin.

    Raises:
        SettingsError: a file cannot be read, is no YAML, or has something that is no object.
    """
    found = [one for file in files for one in _documents(file)]
    if not found:
        raise SettingsError(f"{', '.join(map(str, files))}: there is no object in it")
    return found


def find_mistakes(documents: Sequence[Document]) -> list[str]:
    """Return what is wrong with the objects: file, document, field, what is expected.

    Raises:
        SettingsError: there are kinds of Kubernetes' own, whose schemas are not installed.
    """
    return [*(words for one in documents for words in _mistakes(one)), *_twice(documents)]


def _mistakes(document: Document) -> Iterator[str]:
    metadata = document.content["metadata"]
    for name in OF_THE_CLUSTER:
        if metadata.get(name) is not None:  # `kubectl create --dry-run` writes null
            yield document.said(
                f"metadata.{name}", "was read from a cluster; remove it, and status"
            )
            return
    if document.is_robot_model:
        yield from _of_robot_model(document)
    else:
        wrong = [*wrong_fields(document.content)] or [*wrong_meanings(document.content)]
        yield from (document.said(field, words) for field, words in wrong)


def _of_robot_model(document: Document) -> Iterator[str]:
    if "status" in document.content:
        yield document.said("status", "is written by the controller; remove it")
        return
    if document.content["apiVersion"] != API_VERSION:
        yield document.said("apiVersion", f"expected {API_VERSION}")
        return
    try:
        _RobotModel.model_validate(document.content)
    except ValidationError as error:
        keys, words = explain(error, _RobotModel)
        yield document.said(".".join(keys), words)


def _twice(documents: Sequence[Document]) -> Iterator[str]:
    seen: dict[tuple[str, ...], Document] = {}
    agents: dict[tuple[str, str], Document] = {}
    for one in documents:
        namespace = one.namespace or (NAMESPACE if one.is_robot_model else "")
        key = (str(one.content["apiVersion"]), one.kind, namespace, one.name)
        if key in seen:
            yield one.said("", f"is there twice; the first is document {seen[key].number}")
            continue
        seen[key] = one
        spec = one.content.get("spec")
        if not one.is_robot_model or not isinstance(spec, dict):
            continue
        agent = str(spec.get("agent", RobotModelSpec.model_fields["agent"].default))
        if (other := agents.setdefault((namespace, agent), one)) is not one:
            yield one.said(
                "spec.agent", f"RobotModel {other.name} has agent {agent} too; an agent follows one"
            )


def _documents(file: Path) -> Iterator[Document]:
    name = "stdin" if file == STDIN else str(file)
    contents = [one for one in _yaml(_text(file, name), name) if one is not None]
    for number, content in enumerate(contents, 1):
        where = f"{name}: document {number}"
        _require_json(content, where)
        if not isinstance(content, dict):
            raise SettingsError(f"{where}: expected an object with apiVersion and kind")
        kind, metadata = content.get("kind"), content.get("metadata")
        if kind == "Kustomization":
            raise SettingsError(
                f"{where}: is a kustomization; `kubectl kustomize {file.parent} | "
                "cloud-server k8s apply -` applies what it makes"
            )
        for key in ("apiVersion", "kind"):
            if not isinstance(content.get(key), str):
                raise SettingsError(f"{where}: {key}: expected text, e.g. {API_VERSION}")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise SettingsError(f"{where} ({one_line(str(kind))}): metadata.name: expected a name")
        yield Document(file, number, content)


def _text(file: Path, name: str) -> str:
    try:
        if file == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with file.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: is no text in UTF-8; expected YAML") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{name}: has more than {MAX_BYTES // 10**6} MB; expected manifests")
    return text


def _yaml(text: str, name: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise SettingsError(f"{name}:{line} is no YAML ({error.problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{name}: is no YAML ({one_line(str(error))[:100]})") from None


class _Loader(yaml.SafeLoader):
    """Refuse a key that is there twice: YAML forbids it, and PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in names[:number]:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _require_json(content: Any, where: str) -> None:
    """Raise SettingsError for what JSON does not have, and for aliases that grow without end."""
    left = MAX_VALUES
    waiting = [("", content)]
    while waiting:
        path, value = waiting.pop()
        left -= 1
        if left < 0:
            raise SettingsError(f"{where}: has more than {MAX_VALUES} values")
        if isinstance(value, dict):
            for key, below in value.items():
                if not isinstance(key, str):
                    raise SettingsError(f"{where}: {path}: the key {key!r} is no text; quote it")
                waiting.append((f"{path}.{key}".lstrip("."), below))
        elif isinstance(value, list):
            waiting += [(f"{path}[{number}]", below) for number, below in enumerate(value)]
        elif not isinstance(value, str | int | float | None) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise SettingsError(f"{where}: {path}: {value} is no value of JSON; quote it")

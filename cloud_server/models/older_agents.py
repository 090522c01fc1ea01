"""Published files as agents of protocol 1 understand them: they refuse a field that is new to them.

What is stored is never changed. A manifest is cut when such an agent asks for it; its trainer.json
has a sha256 of its own, which the agent's training request names.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fleet_model.bundle import TRAINER, FileEntry, entry_of

# A field that protocol 1 knows -> what it knows of its value: None is any value, a mapping the
# fields of an object, a list the fields of every value of an object with free keys.
Known: TypeAlias = "Mapping[str, Known] | list[Known] | None"
_ENTRY: Known = {"sha256": None, "size_bytes": None}
_TENSOR: Known = {"shape": None, "dtype": None}
_WORKLOAD: Known = {"name": None, "config": None}
MANIFEST_FIELDS: Mapping[str, Known] = {
    "format": None, "version": None, "created_at": None, "workload": _WORKLOAD, "labels": None,
    "inputs": [_TENSOR], "engines": None, "trainer": _ENTRY, "files": [_ENTRY], "metrics": None,
}  # fmt: skip
TRAINER_FIELDS: Mapping[str, Known] = {
    "format": None, "workload": _WORKLOAD, "trainable": None, "tensors": [_TENSOR],
    "batch_size": None, "files": [_ENTRY], "parts": None,
}  # fmt: skip


class OlderAgents:
    """What a server sends to agents of protocol 1, from its model directories."""

    def __init__(self, *models: Path) -> None:
        """Read nothing yet.

        Each of `models` is the first model directory of a lineage, or the one that is meant; those
        of later labels lie beside the first.
        """
        self._models = models

    def manifest(self, content: bytes) -> bytes:
        """Return a manifest without what is new.

        One with a new critical field is returned as it is: the agent refuses it, and its active
        model stays.
        """
        cut = without_new_fields(content, MANIFEST_FIELDS)
        if cut is None:
            return content
        fields = json.loads(cut)
        for full, own in self._trainer_files():
            if own not in (None, full) and fields.get("trainer") == entry_of(full).model_dump():
                fields["trainer"] = entry_of(own).model_dump()
                return _written(fields)
        return cut

    def trainer(self) -> FileEntry | None:
        """Return the entry of their first trainer.json; None if they cannot train with it."""
        _, own = next(self._trainer_files())
        return None if own is None else entry_of(own)

    def object(self, sha256: str) -> bytes | None:
        """Return the content if it is a trainer.json of theirs."""
        known = (own for _, own in self._trainer_files() if own is not None)
        return next((own for own in known if entry_of(own).sha256 == sha256), None)

    def _trainer_files(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield each trainer.json as it is, and as these agents understand it."""
        for model in self._models:
            for folder in (model, *sorted(model.parent.glob(f"{model.name}-*"))):
                content = (folder / TRAINER).read_bytes()
                yield content, without_new_fields(content, TRAINER_FIELDS)


def without_new_fields(content: bytes, known: Mapping[str, Known]) -> bytes | None:
    """Return a published file without the fields that `known` lacks.

    The same bytes if it has none of these; None if it cannot be understood without one of them.
    """
    fields = json.loads(content)
    new = fields.keys() - known.keys()
    if new & set(fields.get("critical", ())):
        return None
    cut = _cut(fields, known)
    return content if cut == fields else _written(cut)


def _cut(value: Any, known: Known) -> Any:
    if known is None or not isinstance(value, dict):
        return value
    if isinstance(known, list):
        return {name: _cut(one, known[0]) for name, one in value.items()}
    return {name: _cut(value[name], known[name]) for name in value if name in known}


def _written(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"

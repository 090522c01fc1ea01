"""Bring the adapters of departments to a hub, where there is one: whole, in one commit.

Each department has a folder of its own in one repository, which peft loads with `subfolder`. What
is not an adapter of this base, or not finite, never leaves this machine.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_server.departments.sources import Source
from cloud_server.departments.verified import FILES, Verified, verified
from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import BundleError, ConnectionFailed, RefusedError, SettingsError, one_line
from fleet_model.signatures import FROZEN

if TYPE_CHECKING:
    import huggingface_hub

CARD = "README.md"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Found:
    """An adapter that may be brought away, and where its two files are."""

    department: str
    what: str  # for people: "round 3", "version 7"
    adapter: Verified
    folder: Path


@dataclass(frozen=True, slots=True)
class Base:
    """What adapters are added to."""

    name: str  # OWNER/NAME at the hub; "": not said
    sha256: str  # of the weights

    @property
    def words(self) -> str:
        """Return how people know it again."""
        known = f"the one whose weights have the sha256 `{self.sha256[:12]}` in the fleet"
        return f"`{self.name}`, {known}" if self.name else known


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the hub has now."""

    url: str
    commit: str
    brought: Sequence[Found]
    changed: bool  # False: it had all of that


def collected(source: Source, base: LoraSpec, into: Path, only: Sequence[str] = ()) -> list[Found]:
    """Copy the adapters that departments have now, and check each.

    Args:
        source: says which they are.
        base: the adapters of the fleet.
        into: a folder; DEPARTMENT/ in it gets two files.
        only: departments; none: all.

    Raises:
        SettingsError: there is no such department.
        BundleError: no department has an adapter, or one is damaged or of another base.
    """
    offered = source.look()
    if not offered:
        raise BundleError("no department has an adapter yet; train first")
    for name in only:
        if name not in offered:
            raise SettingsError(
                f"there is no department {name}; those with an adapter are "
                f"{', '.join(sorted(offered))}"
            )
    found = []
    for name in sorted(only or offered):
        folder = into / name
        folder.mkdir(parents=True)
        try:
            offered[name].bring(folder)
            made = verified(folder, base)
        except BundleError as error:
            raise BundleError(f"department {name}, {offered[name].what}: {error}") from None
        found.append(Found(name, offered[name].what, made, folder))
    return found


def upload(
    found: Sequence[Found], repository: str, base: "Base", *, public: bool = False
) -> Uploaded:
    """Bring adapters to a repository of the hub that HF_ENDPOINT names, else Hugging Face's.

    It is made where it is missing. Files of departments that are not in `found` stay there.

    Args:
        found: see `collected`.
        repository: OWNER/NAME.
        base: what the page says of it, see `base_of`.
        public: of a repository that is made; one that is there stays as it is.

    Raises:
        SettingsError: that is no name of a repository, or a package is missing.
        ConnectionFailed: no hub answers.
        RefusedError: the hub does not let this account write there.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise SettingsError(f"{repository}: expected the repository as OWNER/NAME")
    try:
        import huggingface_hub
        from huggingface_hub.utils import logging
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise SettingsError(
            "huggingface_hub is not installed: pip install 'fleetlearn[torch-server]'"
        ) from None
    logging.get_logger("huggingface_hub").setLevel("ERROR")  # the command says it in its own words
    disable_progress_bars()
    hub = huggingface_hub.HfApi(library_name="fleetlearn")
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / CARD
        card.write_text(_card(found, repository, base), encoding="utf-8")
        operations = [
            huggingface_hub.CommitOperationAdd(f"{one.department}/{name}", one.folder / name)
            for one in found
            for name in FILES
        ]
        operations.append(huggingface_hub.CommitOperationAdd(CARD, card))
        return _committed(hub, repository, operations, found, private=not public)


def _committed(
    hub: "huggingface_hub.HfApi",
    repository: str,
    operations: list[Any],
    found: Sequence[Found],
    *,
    private: bool,
) -> Uploaded:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    message = "Adapters of " + ", ".join(f"{one.department} ({one.what})" for one in found)
    try:
        made = hub.create_repo(repository, private=private, exist_ok=True)
        before = hub.model_info(repository).sha
        done = hub.create_commit(repository, operations, commit_message=message[:200])
    except OfflineModeIsEnabled:
        raise ConnectionFailed(
            f"{repository}: HF_HUB_OFFLINE is set; unset it to reach a hub. Nothing was uploaded"
        ) from None
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise _refused(repository, error) from None
    except Exception as error:
        if not _is_network(error):
            raise
        raise ConnectionFailed(
            f"{repository}: no hub answers at {hub.endpoint}; set HF_ENDPOINT if yours is "
            "elsewhere. Nothing was uploaded"
        ) from None
    return Uploaded(str(made), str(done.oid), found, changed=done.oid != before)


def _refused(repository: str, error: Exception) -> RefusedError | ConnectionFailed:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and status >= 500:
        return ConnectionFailed(
            f"{repository}: the hub is not well (status {status}); try again later. Nothing was "
            "uploaded"
        )
    if status in (None, 401, 403):
        return RefusedError(
            f"{repository}: the hub lets nobody write there without a token that may; set HF_TOKEN "
            "to one with the right to write, or call `hf auth login`. Nothing was uploaded"
        )
    said = one_line(str(getattr(error, "server_message", "") or f"status {status}"))[:200]
    return RefusedError(f"{repository}: the hub refuses it: {said}. Nothing was uploaded")


def _is_network(error: Exception) -> bool:
    """Say whether the other side could not be reached; which library asks changes."""
    names = {one.__name__ for one in type(error).__mro__}
    return isinstance(error, OSError) or bool(names & {"TransportError", "RequestException"})


def _card(found: Sequence[Found], repository: str, base: "Base") -> str:
    """Return the page of the repository: what is in it, and how it is loaded."""
    first = found[0].department
    rows = "".join(
        f"| `{one.department}` | {one.what} | {one.adapter.rank} | `{one.adapter.key[:12]}` |\n"
        for one in found
    )
    base_line = f"base_model: {base.name}\n" if base.name else ""
    return f"""---
library_name: peft
tags: [lora, federated-learning]
{base_line}---

# {repository}

Low-rank adapters (LoRA) of one language model, learned together by departments whose texts never
left their machines. The base is not here. It is {base.words}.

| folder | of | rank | sha256 |
| --- | --- | --- | --- |
{rows}
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base.name or "BASE"}")
model = PeftModel.from_pretrained(base, "{repository}", subfolder="{first}")
```
"""


def base_of(spec: TrainerSpec, name: str) -> Base:
    """Return the base of a fleet; raises SettingsError if `name` is no OWNER/NAME."""
    if name and not _REPOSITORY.fullmatch(name):
        raise SettingsError(f"--base {name}: expected OWNER/NAME")
    return Base(name, spec.files[FROZEN].sha256)


def listed(found: Sequence[Found]) -> list[Mapping[str, Any]]:
    """Return them for JSON."""
    return [
        {
            "department": one.department,
            "what": one.what,
            "rank": one.adapter.rank,
            "size_bytes": one.adapter.size_bytes,
            "sha256": one.adapter.key,
        }
        for one in found
    ]

"""A model that is named as on a hub: fetched where there is one, and a clear word where not."""

import re
from collections.abc import Sequence
from pathlib import Path

from fleet_model.errors import CheckpointError

_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def is_hub_name(path: Path) -> bool:
    """Say whether what is no path here may be a name such as owner/model."""
    return not path.exists() and _NAME.fullmatch(str(path)) is not None


def fetched(name: str, files: Sequence[str], flag: str = "--checkpoint") -> Path:
    """Return the folder of a model of the hub that HF_ENDPOINT names, else Hugging Face's.

    Args:
        name: owner/model, or a model of the hub's own.
        flag: names a folder in its place.
        files: that are wanted; what is kept of an earlier call is not fetched again.

    Raises:
        CheckpointError: no hub can be reached, or it has no such model.
    """
    advice = (
        f"{name}: there is no such folder here, and {{}}; give {flag} a folder with "
        f"{', '.join(files)}"
    )
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(advice.format("huggingface_hub is not installed")) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # noqa: BLE001  (of several libraries, without a base of their own)
        why = f"no hub gives it ({type(error).__name__})"
        raise CheckpointError(advice.format(why)) from None

"""Whether an adapter is whole, finite and of this base, before anybody is answered with it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import sha256_of
from fleet_model.errors import BundleError
from fleet_model.workloads.causal_lm.peft_files import ADAPTER, ADAPTER_CONFIG, read_adapter

FILES = (ADAPTER_CONFIG, ADAPTER)
# What makes peft compute something else than A B times alpha / rank: field -> as it must be.
_PLAIN = {
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "bias": ("none", None),
}


@dataclass(frozen=True, slots=True)
class Verified:
    """An adapter that may be used."""

    key: str  # sha256 of both files
    rank: int
    size_bytes: int


def verified(folder: Path, base: LoraSpec) -> Verified:
    """Return what the two files in a folder are.

    Args:
        folder: nobody else writes into it.
        base: the adapters of the fleet: which layers have one, and of which shape.

    Raises:
        BundleError: a file is missing or damaged, numbers are not finite, or it is of another base.
    """
    try:
        spec, weights = read_adapter(folder, lambda name: name.replace(".", "/"))
        about = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (ValidationError, IndexError, AttributeError) as error:
        raise BundleError(
            f"{ADAPTER_CONFIG}: is no adapter's: {type(error).__name__}; write it anew"
        ) from None
    for name, plain in _PLAIN.items():
        if about.get(name) not in plain:
            raise BundleError(
                f"{ADAPTER_CONFIG}: {name} is {str(about[name])[:60]}, expected {plain[0]}: only "
                "plain low-rank adapters are served"
            )
    for name, tensor in weights.items():
        if tensor.dtype.kind != "f":
            raise BundleError(f"{ADAPTER}: {name[:100]} is {tensor.dtype}, expected floats")
        if not np.isfinite(tensor).all():
            raise BundleError(f"{ADAPTER}: {name[:100]} holds NaN or infinity")
    strange = sorted(dict(spec.targets).items() ^ dict(base.targets).items())
    if strange:
        raise BundleError(
            f"{ADAPTER}: {strange[0][0][:100]} of shape {strange[0][1]} is in one of the adapter "
            "and the fleet's own alone; is it of another base, or a part of one?"
        )
    files = [(folder / name).read_bytes() for name in FILES]
    key = sha256_of("".join(map(sha256_of, files)).encode())
    return Verified(key, spec.rank, sum(map(len, files)))

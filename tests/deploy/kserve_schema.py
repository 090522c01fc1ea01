"""Hold objects against the classes that kserve generates from its CRDs; runs in .venv-deploy.

usage: python kserve_schema.py OBJECTS.yaml      (prints one fault a line; KServe's kinds alone)

The classes know the names and types of fields, and few that must be there; not ranges, not what a
controller asks. Quantities and other free types are not looked at.
"""

import re
import sys
from pathlib import Path

import kserve.models
import kubernetes.client
import yaml

KINDS = {
    "InferenceService": "V1beta1InferenceService",
    "ServingRuntime": "V1alpha1ServingRuntime",
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}
LIST, MAP = re.compile(r"list\[(.*)\]$", re.I), re.compile(r"dict[(\[]str, (.*)[)\]]$", re.I)


def faults(value, kind, where):
    """Return what is wrong with a value as one of the generated types."""
    if match := LIST.match(kind):
        if not isinstance(value, list):
            return [f"{where}: expected a list"]
        return [f for i, one in enumerate(value) for f in faults(one, match[1], f"{where}[{i}]")]
    if match := MAP.match(kind):
        if not isinstance(value, dict):
            return [f"{where}: expected a map"]
        return [f for k, one in value.items() for f in faults(one, match[1], f"{where}.{k}")]
    if kind in PLAIN:
        right = isinstance(value, PLAIN[kind]) and (kind == "bool") == isinstance(value, bool)
        return [] if right else [f"{where}: expected {kind}, got {type(value).__name__}"]
    made = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if not hasattr(made, "openapi_types") or isinstance(value, (str, int)):
        return []
    names = {written: name for name, written in made.attribute_map.items()}
    found = [f"{where}: {kind} has no field {one!r}" for one in value if one not in names]
    known = {key: one for key, one in value.items() if key in names}
    for key, one in known.items():
        found += faults(one, made.openapi_types[names[key]], f"{where}.{key}")
    try:
        made(**{names[key]: one for key, one in known.items()})
    except ValueError as error:  # what must be there is not
        found.append(f"{where}: {error}")
    return found


def main():
    """Print what is wrong."""
    for one in yaml.safe_load_all(Path(sys.argv[1]).read_text()):
        for fault in faults(one, KINDS[one["kind"]], one["kind"]):
            print(fault)  # noqa: T201


if __name__ == "__main__":
    main()

"""What the schemas of Kubernetes allow, and a cluster refuses, or a pod waits for in vain."""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

_FACTORS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+)?([A-Za-z]*)")


def wrong_meanings(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield field and words of what does not fit together in a workload.

    Args:
        content: an object that fits its schema.
    """
    spec = content.get("spec") or {}
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    if not isinstance(pod, dict) or "containers" not in pod:
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    for name, value in ((spec.get("selector") or {}).get("matchLabels") or {}).items():
        if labels.get(name) != value:
            yield (
                f"spec.selector.matchLabels.{name}",
                f"is {value}, and the pod's label is {labels.get(name, 'not there')}: it would "
                "never find its pods",
            )
    claims = [one.get("metadata") or {} for one in _list(spec, "volumeClaimTemplates")]
    volumes = {str(one.get("name")) for one in [*_list(pod, "volumes"), *claims]}
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for number, container in enumerate(_list(pod, group)):
            field = f"spec.template.spec.{group}[{number}]"
            if container["name"] in seen:
                yield f"{field}.name", f"{container['name']} is there twice"
            seen.add(container["name"])
            yield from _of_container(container, field, volumes)


def _of_container(
    container: Mapping[str, Any], field: str, volumes: set[str]
) -> Iterator[tuple[str, str]]:
    for number, mount in enumerate(_list(container, "volumeMounts")):
        if mount["name"] not in volumes:
            known = ", ".join(sorted(volumes)) or "none"
            yield (
                f"{field}.volumeMounts[{number}].name",
                f"there is no volume {mount['name']}; there are: {known}",
            )
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in sorted(set(requests) & set(limits)):
        wanted, most = _number(requests[name]), _number(limits[name])
        if wanted is not None and most is not None and wanted > most:
            yield (
                f"{field}.resources.requests.{name}",
                f"is {requests[name]}, more than its limit of {limits[name]}",
            )


def _list(of: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return of.get(name) or ()


def _number(quantity: object) -> Decimal | None:
    """Return a quantity such as 100m or 2Gi as a number; None if it is none."""
    match = _QUANTITY.fullmatch(str(quantity))
    if not match:
        return None
    digits, power, unit = match.groups()
    try:
        number = Decimal(digits + (power or ""))
    except ArithmeticError:
        return None
    if unit in _BINARY:
        return number * Decimal(1024) ** _BINARY[unit]
    return number.scaleb(_FACTORS[unit]) if unit in _FACTORS else None

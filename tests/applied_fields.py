"""Server-side apply as far as tests need it: who owns which field, and what a new owner changes.

Lists of named things (containers, variables, volumes, conditions) are merged by that name, others
are one field, as in the schemas of Kubernetes.
"""

import copy

KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name",
    "volumeMounts": "mountPath", "ports": "containerPort", "conditions": "type",
}  # fmt: skip
# Not fields of a manager.
IDENTITY = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
}


class ConflictError(Exception):
    """Another manager owns a field that has another value."""


def flatten(value, path=()):
    """Return path -> leaf; an item of a merged list has the pair of its key in the path."""
    if isinstance(value, dict) and value:
        found = {}
        for name, below in value.items():
            key = KEYS.get(name)
            if (
                key
                and isinstance(below, list)
                and all(isinstance(one, dict) for one in below)
                and below
            ):
                for one in below:
                    found |= flatten(one, (*path, name, (key, one.get(key))))
            else:
                found |= flatten(below, (*path, name))
        return found
    return {path: value}


def unflatten(leaves):
    """Return the object of such leaves."""
    root = {}
    for path, value in leaves.items():
        place = root
        for number, part in enumerate(path):
            last = number == len(path) - 1
            below = path[number + 1] if not last else None
            if isinstance(part, tuple):  # an item of the list in `place`
                item = next((one for one in place if one.get(part[0]) == part[1]), None)
                if item is None:
                    item = {part[0]: part[1]}
                    place.append(item)
                place = item
            elif last:
                place[part] = copy.deepcopy(value)
            else:
                place = place.setdefault(part, [] if isinstance(below, tuple) else {})
    return root


def apply(live, owners, manager, wanted, force=False):
    """Return the merged object and the new owners (manager -> paths).

    Args:
        live: the object as it is; None if there is none.
        owners: manager -> paths.
        manager: who applies.
        wanted: the fields that are to be theirs.
        force: take fields over.
    """
    leaves = flatten(live) if live else {}
    new = flatten(wanted)
    mine = {path for path in new if path not in IDENTITY}
    others = {name: set(paths) for name, paths in owners.items() if name != manager}
    for path in mine:
        holders = [name for name, paths in others.items() if path in paths]
        if holders and leaves.get(path) != new[path]:
            if not force:
                field = "".join(
                    f'[{p[0]}="{p[1]}"]' if isinstance(p, tuple) else f".{p}" for p in path
                )
                raise ConflictError(
                    f'Apply failed with 1 conflict: conflict with "{holders[0]}": {field}'
                )
            for name in holders:
                others[name].discard(path)
    for path in owners.get(manager, set()) - mine:
        if not any(path in paths for paths in others.values()):
            leaves.pop(path, None)
    leaves |= new
    return unflatten(leaves), {**others, manager: mine}

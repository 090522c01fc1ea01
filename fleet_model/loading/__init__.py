"""Turn a plug-in name from a settings file into an object, importing it only then."""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fleet_model.errors import SettingsError
from fleet_model.loading.moved import new_name

# What Python says of `from package import module`: the module's name is only in the text.
NOT_IN = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


def load_plugin(table: Mapping[str, str], name: str) -> Any:
    """Return the object that `name` names.

    Args:
        table: Built-in names, e.g. `{".bag": "edge_agent.data.storage.ros1.file:Ros1File"}`.
        name: A key of `table`, or a "module:attribute" path to your own code.

    Raises:
        SettingsError: the name is unknown, your module or attribute does not exist, or one of ours
            has moved: it says where.
    """
    module, _, attribute = table.get(name, name).partition(":")
    if not attribute:
        choices = ", ".join(sorted(table))
        raise SettingsError(f"unknown plug-in {name!r}; choose {choices} or 'module:attribute'")
    try:
        loaded = import_module(module)
    except (ImportError, TypeError, ValueError) as error:
        raise SettingsError(f"plug-in {name!r}{_why_not(module, error)}") from error
    try:
        return getattr(loaded, attribute)
    except AttributeError:
        moved = new_name(module)
        reason = f"has moved to {moved!r}" if moved else f"has no {attribute!r}"
        raise SettingsError(f"plug-in {name!r}: {module} {reason}") from None


def _why_not(module: str, error: Exception) -> str:
    """Return why a module cannot be imported, and what to write in the place of an old name."""
    missing = getattr(error, "name", None) or ""  # a module, of ImportError
    if found := NOT_IN.match(str(error)):
        missing = missing if new_name(missing) else f"{found[2]}.{found[1]}"
    is_itself = module == missing or module.startswith(f"{missing}.")
    if moved := new_name(module if is_itself else missing):
        old = f"module {module!r}" if is_itself else f"it imports {missing!r}, which"
        return f": {old} has moved to {moved!r}"
    if isinstance(error, ModuleNotFoundError) and missing:
        if is_itself:
            return f": there is no module {module!r}"
        return f" needs the package {missing!r}, which is not installed"
    return f" cannot be imported ({error})"  # also a relative or empty module name

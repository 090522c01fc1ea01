"""Turn a plug-in name from a settings file into an object, importing it only then."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fleet_model.errors import SettingsError


def load_plugin(table: Mapping[str, str], name: str) -> Any:
    """Return the object that `name` stands for.

    Args:
        table: Built-in names, e.g. `{"bag": "edge_agent.data.frames.bag:BagFrames"}`.
        name: A key of `table`, or a "module:attribute" path to your own code.

    Raises:
        SettingsError: the name is unknown, or your module or attribute does not exist.
    """
    module, _, attribute = table.get(name, name).partition(":")
    if not attribute:
        choices = ", ".join(sorted(table))
        raise SettingsError(f"unknown plug-in {name!r}; choose {choices} or 'module:attribute'")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            raise SettingsError(
                f"plug-in {name!r} needs the package {error.name!r}, which is not installed"
            ) from error
        raise SettingsError(f"plug-in {name!r}: there is no module {module!r}") from error
    except (ImportError, TypeError, ValueError) as error:  # also a relative or empty module name
        raise SettingsError(f"plug-in {name!r} cannot be imported ({error})") from error
    try:
        return getattr(loaded, attribute)
    except AttributeError:
        raise SettingsError(f"plug-in {name!r}: {module} has no {attribute!r}") from None

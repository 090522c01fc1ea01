"""The models that are compared, as a person names them: bundle folders, files in them, or alone."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fleet_model.bundle import MANIFEST, Manifest, read_bundle
from fleet_model.errors import BundleError, SettingsError

FEWEST, MOST = 2, 6  # models side by side: more do not fit a screen
USUAL = "fp32"
LABELS, MOST_LABEL_BYTES = "labels.txt", 1 << 20
PICTURE, TEXT = "picture", "text"  # what models are shown


class Contender(NamedTuple):
    """One model; it travels to the process that opens it as a row of JSON."""

    name: str
    folder: str  # of its bundle, or of a store's files by sha256; or a file alone
    precision: str
    manifest: str = ""  # its JSON, where the files are a store's
    labels: tuple[str, ...] = ()  # of a file alone


def contenders(paths: Sequence[Path]) -> list[Contender]:
    """Return the models that a person names.

    Args:
        paths: a bundle folder means its fp32 engine, or the only one; a file in it means the
            engine that it is of. A .tflite file alone is a picture classifier that has its labels
            in it, as `cloud-server models export --format tflite` and `compress` write them.

    Raises:
        SettingsError: too few or too many, or a path that is neither.
        BundleError: a manifest is damaged, or names no such file.
    """
    if not FEWEST <= len(paths) <= MOST:
        raise SettingsError(f"{len(paths)} models; name {FEWEST} to {MOST}")
    found = [_found(path) for path in paths]
    names = _told_apart(found)
    return [one._replace(name=name) for one, name in zip(found, names, strict=True)]


def _found(path: Path) -> Contender:
    is_folder = path.is_dir()
    if not is_folder and not path.is_file():
        raise SettingsError(f"{path}: there is no such file or folder")
    folder = path if is_folder else path.parent
    if not is_folder and not (folder / MANIFEST).is_file():
        file = path.resolve()
        return Contender(path.stem, str(file), USUAL, labels=labels_in(file))
    if not (folder / MANIFEST).is_file():
        raise SettingsError(
            f"{path}: has no {MANIFEST}; expected a bundle folder, as robots have it, or a file"
        )
    try:
        manifest = read_bundle(folder, names=())
    except BundleError as error:  # of several that are named
        raise BundleError(f"{folder}: {error}") from None
    precision = usual_precision(manifest) if is_folder else _precision_of(manifest, path.name)
    return Contender(folder.resolve().name, str(folder.resolve()), precision)


def labels_in(file: Path) -> tuple[str, ...]:
    """Return the labels that lie behind the graph of a .tflite file, one a line.

    Raises:
        SettingsError: there are none, so that nobody knows what the file answers.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open(LABELS) as stream:
            labels = stream.read(MOST_LABEL_BYTES).decode().splitlines()
    except (KeyError, OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        labels = []
    if not labels:
        raise SettingsError(
            f"{file.name}: lies beside no {MANIFEST} and has no {LABELS} in it; expected a bundle "
            "folder, a model file in one, or a picture classifier as `cloud-server models export "
            "--format tflite` writes it"
        )
    return tuple(labels)


def usual_precision(manifest: Manifest) -> str:
    """Return the precision that a bundle is shown with: fp32, else its first one."""
    return USUAL if USUAL in manifest.engines else min(manifest.engines)


def _precision_of(manifest: Manifest, file: str) -> str:
    fitting = [name for name, stages in sorted(manifest.engines.items()) if file in stages]
    if not fitting:
        known = sorted({stage for stages in manifest.engines.values() for stage in stages})
        raise BundleError(f"{file} is no engine of its bundle; choose {', '.join(known)}")
    return USUAL if USUAL in fitting else fitting[0]


def _told_apart(found: Sequence[Contender]) -> list[str]:
    """Return names of which no two are the same: folder, then precision, folders above, number."""
    choices = (
        [one.name if one.precision == USUAL else f"{one.name} {one.precision}" for one in found],
        ["/".join([*Path(one.folder).parts[-2:], one.precision]) for one in found],
    )
    for names in choices:
        if len(set(names)) == len(names):
            return names
    seen = Counter[str]()
    numbered = []
    for name in choices[0]:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered

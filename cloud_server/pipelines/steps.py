"""Do a step once: its result is a folder that is named by all that goes into it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cloud_server.models.backend import Progress
from fleet_model.durable import make_directory, making_folder, telling_of_the_disk
from fleet_model.files.folders import unreadable

_ROOT = Path(__file__).parents[2]
# What of this project decides a step's result, and the libraries that do.
_SOURCES = ("cloud_server/pipelines", "fleet_model")
_LIBRARIES = ("numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")


def working_folder(work: Path) -> Path:
    """Make the folder of the steps' results and return its absolute path; raises StorageError."""
    with telling_of_the_disk(str(work), "name another folder: --work"):
        make_directory(work)
    return work.absolute()


def step(work: Path, name: str, key: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """Return the folder of a step's result, made by `make` if it is not there.

    It gets its name in one step: a process that is killed in `make` loses this step alone.

    Args:
        work: folder of all results.
        name: of the step.
        key: see `key_of`.
        make: fills an empty folder.
        progress: is told whether there is something to do.

    Raises:
        StorageError: the disk is full, or may not be written.
    """
    folder = folder_of(work, name, key)
    if folder.is_dir():
        progress(f"{name}: done before")
        return folder
    progress(name)
    with telling_of_the_disk(str(work), "name another folder: --work"):
        aside = folder.with_name(f".{folder.name}.new")
        with making_folder(folder, aside):
            make(aside)
    return folder


def folder_of(work: Path, name: str, key: str) -> Path:
    """Return where the result of a step lies, or will."""
    return work / f"{name}-{key[:20]}"


def key_of(name: str, given: Mapping[str, Any], code: str = "") -> str:
    """Return what names a step's result: a digest of its inputs, its options and all code.

    Args:
        name: of the step.
        given: keys of the results that it reads, digests of data, options; JSON values.
        code: what the result depends on besides; "": `code_digest`.
    """
    told = {"step": name, "code": code or code_digest(), "given": given}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Return a digest of the code that decides results, and of the versions of its libraries."""
    return digest_of_code(_ROOT, _LIBRARIES)


def digest_of_code(
    root: Path, libraries: tuple[str, ...], sources: tuple[str, ...] = _SOURCES
) -> str:
    """Return the digest of the sources below `root`, and of the versions of `libraries`."""
    found = hashlib.sha256()
    for folder in sources:
        for file in sorted((root / folder).rglob("*.py")):
            found.update(f"{file.relative_to(root)}\0".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    for library in libraries:
        try:
            found.update(f"{library} {version(library)}\0".encode())
        except PackageNotFoundError:
            found.update(f"{library} -\0".encode())
    return found.hexdigest()


def content_digest(path: Path) -> str:
    """Return a digest of a file, or of the files of a folder with their names; links are read.

    Raises:
        FrameError: one of them cannot be read.
    """
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            if not file.is_file():
                continue
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(name, error) from None
        found.update(f"{name}\0{digest}\0".encode("utf-8", "surrogateescape"))
    return found.hexdigest()

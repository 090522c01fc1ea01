"""Where data and models come from, and where results go: folders, buckets, hubs."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cloud_server.models.backend import Progress
from cloud_server.models.hub import fetched, is_hub_name
from cloud_server.pipelines.tokens import CONFIG
from fleet_model.durable import (
    making_folder,
    rename_durably,
    sync_file_system,
    telling_of_the_disk,
)
from fleet_model.errors import CheckpointError, ConnectionFailed, FrameError, SettingsError
from fleet_model.workloads.text_classifier.tokens import TOKENIZER

T = TypeVar("T")
WEIGHTS = "model.safetensors"
MODEL_FILES = (CONFIG, WEIGHTS, TOKENIZER)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_DATA = ("*.csv", "*.tsv", "*.jsonl", "*.json", "*.parquet", "*.arrow")
_MOST_WORDS = 300
DONE = "pipeline.json"  # written last: with it, a result is complete


def is_bucket(where: str) -> bool:
    """Say whether it names a bucket, as s3://bucket/folder."""
    return bool(_URL.match(where))


def data_at(where: str, work: Path, options: Mapping[str, Any], progress: Progress) -> Path:
    """Return the table or folder of tables, fetched where it is elsewhere.

    Args:
        where: a path, a bucket's file or folder, or a data set's name on a hub (owner/name).
        work: gets what is fetched from a bucket; objects that are the same are not fetched again.
        options: of fsspec, for the bucket.
        progress: is told.

    Raises:
        FrameError: there is nothing.
        ConnectionFailed: the bucket cannot be reached.
    """
    if is_bucket(where):
        return _fetched(where, work, options, progress)
    path = Path(where)
    if path.exists() or not is_hub_name(path) or "/" not in where:
        if not path.exists():
            raise FrameError(f"{where}: no such file or folder", "missing file")
        return path
    progress(f"data set {where}")
    return _of_hub(where)


def model_at(where: str, work: Path, options: Mapping[str, Any], progress: Progress) -> Path:
    """Return the folder of a model, fetched where it is elsewhere; as `data_at`.

    Raises:
        CheckpointError: a file is missing, or no hub has the model.
        ConnectionFailed: the bucket cannot be reached.
    """
    if is_bucket(where):
        path = _fetched(where, work, options, progress)
    elif is_hub_name(Path(where)):
        progress(f"model {where}")
        path = fetched(where, MODEL_FILES, "--model")
    else:
        path = Path(where)
    if missing := [name for name in MODEL_FILES if not (path / name).is_file()]:
        raise CheckpointError(
            f"{where}: has no {missing[0]}; expected a folder with {', '.join(MODEL_FILES)}"
        )
    return path


def require_out(where: str, options: Mapping[str, Any]) -> None:
    """Refuse a place where results cannot go, before there are any.

    Raises:
        SettingsError: it holds other files, or a package for this bucket is missing.
    """
    if is_bucket(where):
        _file_system(where, options)
        return
    path = Path(where)
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{where}: is a file; name a folder for the results")
    if path.is_dir() and any(path.iterdir()) and not (path / DONE).is_file():
        raise SettingsError(f"{where}: holds other files; name a new or an empty folder")


def deliver(result: Path, told: Mapping[str, Any], where: str, options: Mapping[str, Any]) -> None:
    """Bring a result to its place, in place of the one that is there; pipeline.json comes last.

    Args:
        result: folder with model/, metrics.json, confusion_matrix.png.
        told: what it was made of, for pipeline.json; JSON values.
        where: folder or bucket.
        options: of fsspec, for the bucket.

    Raises:
        ConnectionFailed: the bucket cannot be written.
        StorageError: the disk is full, or may not be written.
    """
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if is_bucket(where):
        _upload(result, text, where, options)
        return
    path = Path(where).absolute()
    with telling_of_the_disk(where, "name another folder"):
        former = path.with_name(f".{path.name}.old")
        aside = path.with_name(f".{path.name}.new")
        for leftover in (former, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(result, aside / "result")
        (aside / "result" / DONE).write_text(text, "utf-8")
        sync_file_system(aside)  # before it gets its name, all that is in it must be durable
        if path.exists():
            path.rename(former)
        rename_durably(aside / "result", path)
        for leftover in (former, aside):
            shutil.rmtree(leftover, ignore_errors=True)


def _of_hub(name: str) -> Path:
    advice = f"{name}: there is no such file or folder here, and"
    try:
        import huggingface_hub
    except ImportError:
        raise FrameError(f"{advice} huggingface_hub is not installed", "missing file") from None
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, repo_type="dataset", allow_patterns=[*_DATA, *(f"**/{one}" for one in _DATA)]
            )
        )
    except Exception as error:  # noqa: BLE001  (of several libraries, without a base of their own)
        why = f"no hub gives such a data set ({type(error).__name__})"
        raise FrameError(f"{advice} {why}; name a file or folder", "missing file") from None


def _file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return what reads and writes a bucket, and the path in it; raises SettingsError."""
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url.rstrip("/"), **options)
    except ImportError as error:
        raise SettingsError(
            f"{url}: {_words(error)}; pip install 'fleetlearn[bucket]' has what s3:// needs"
        ) from None
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{url}: {_words(error)}") from None
    return files, str(root)


def _fetched(url: str, work: Path, options: Mapping[str, Any], progress: Progress) -> Path:
    """Return a copy of a bucket's file or folder, of the objects as they are now."""
    files, root = _file_system(url, options)
    listed: dict[str, Any] = _do(url, lambda: dict(files.find(root, detail=True)))
    if not listed:
        raise FrameError(f"{url}: nothing is there", "missing file")
    states = sorted(
        (path, about["size"], str(about.get("ETag") or about.get("mtime")))
        for path, about in listed.items()
    )
    key = hashlib.sha256(json.dumps([url, states]).encode()).hexdigest()[:20]
    folder, name = work / f"fetched-{key}", root.rpartition("/")[2]
    if not folder.is_dir():
        progress(f"fetching {url}: {sum(size for _, size, _ in states) / 1e6:.1f} MB")
        with (
            telling_of_the_disk(str(work), "name another folder: --work"),
            making_folder(folder, folder.with_name(f".{folder.name}.new")),
        ):
            _fetch(url, files, root, listed, folder.with_name(f".{folder.name}.new") / name)
    return folder / name


def _fetch(url: str, files: Any, root: str, listed: Sequence[str] | Any, into: Path) -> None:
    for path in listed:
        rest = path.removeprefix(root).strip("/")
        target = into / rest if rest else into
        if ".." in Path(rest).parts:
            raise FrameError(f"{url}: has an object with '..' in its name; it is not fetched")
        target.parent.mkdir(parents=True, exist_ok=True)
        _do(url, lambda path=path, target=target: files.get_file(path, str(target)))  # type: ignore[misc]


def _upload(result: Path, text: str, url: str, options: Mapping[str, Any]) -> None:
    """Put pipeline.json last, and take an older one away first: what has it is complete."""
    files, root = _file_system(url, options)
    done = f"{root}/{DONE}"
    files.invalidate_cache()  # what others have put there since counts
    if _do(url, lambda: files.exists(done)):
        _do(url, lambda: files.rm_file(done))
    for file in sorted(result.rglob("*")):
        if file.is_file():
            name = f"{root}/{file.relative_to(result).as_posix()}"
            _do(url, lambda file=file, name=name: files.put_file(str(file), name))  # type: ignore[misc]
    _do(url, lambda: files.pipe_file(done, text.encode()))


def _do(url: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except FileNotFoundError:
        raise FrameError(f"{url}: no such bucket, file or folder", "missing file") from None
    except Exception as error:  # noqa: BLE001  (of any library)
        raise ConnectionFailed(
            f"{url}: {_words(error)}; are bucket, address and credentials right?"
        ) from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST_WORDS] or type(error).__name__

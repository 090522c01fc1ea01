"""TFDS: a directory of TFRecord files that tensorflow_datasets opens, handled without it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

from edge_agent.data.frames.source import Place
from edge_agent.data.label_formats.data_set import (
    LabelledEntry,
    inside,
)
from edge_agent.data.label_formats.picture_size import class_names
from edge_agent.data.label_formats.tfds.info import (
    FEATURES,
    INFO,
    NAME,
    features_text,
    info_text,
    label_files,
    read_info,
    shard_name,
)
from edge_agent.data.label_formats.tfds.record import (
    Crowds,
    OpenShard,
    Picture,
    list_record,
    load_record,
    read_whole,
    record_of,
)
from edge_agent.data.label_formats.tfds.tf_example import Values
from edge_agent.data.label_formats.tfds.tfrecord import (
    record_positions,
    write_record,
)
from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow
from fleet_model.durable import write_durably, writing
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.pictures.image_header import ImageHeader

_SHARD_BYTES = 256 << 20  # tensorflow_datasets aims at 0.1 to 1 GB as well


class TfdsFormat:
    """Records hold everything: the picture's own bytes, label, boxes, stamp, topic, source.

    The pictures that `finish` puts into records are not needed afterwards. Directories of others
    are read as well: a picture, a class, boxes. Their records have no time, so a frame's stamp is
    the time its file was written, and a nanosecond more for each record.
    """

    embeds_images = True
    holds_boxes_only = False

    def recognizes(self, path: Path) -> bool:
        """Return whether there is a dataset_info.json, here or in name/version/."""
        return bool(_builder_directories(path))

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield every record of every split; see DataSetFormat."""
        root = _choose(path.resolve())
        info = read_info(root)
        rows = iter(_stamps(root, damage))
        first, opened = 0, list[OpenShard]()
        crowds = Crowds(lambda: _examples(opened), info.crowd)
        for shard in info.shards:
            opened.append(OpenShard(root, info, shard, first, damage, crowds))
            first += shard.length
        for name in info.unread:
            damage.add("feature not read", f"{root.name}/{FEATURES}: {name}", first)
        for each in opened:
            yield from _shard_entries(each, list(islice(rows, each.shard.length)))

    def path_of(self, row: ManifestRow) -> str:
        """Return images/name: where the picture waits for `finish`."""
        return f"images/{row.file}"

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Write the records, then the index; until that is complete there is no index."""
        names = class_names(rows)
        numbers = {name: number for number, name in enumerate(names)}
        count = max(1, -(-_total_bytes(out, rows) // _SHARD_BYTES))
        total = sum(1 for _ in rows)
        bounds = [total * number // count for number in range(count + 1)]
        (out / INFO).unlink(missing_ok=True)
        kinds = dict[ImageHeader | None, None]()
        size, following = 0, iter(rows)
        for number, (low, high) in enumerate(pairwise(bounds)):
            with writing(out / shard_name(number, count)) as stream:
                for row in islice(following, high - low):
                    record, kind = record_of(out, row, numbers)
                    kinds[kind] = None
                    size += len(record)
                    write_record(stream, record)
        _remove_others(out, count)
        for name, text in label_files(names).items():
            write_durably(out / name, text)
        write_durably(out / FEATURES, features_text(kinds, names))
        lengths = [high - low for low, high in pairwise(bounds)]
        write_durably(out / INFO, info_text(lengths, size))


def _builder_directories(path: Path) -> list[Path]:
    """Return the directories with an index: itself, or those in name/version/."""
    if (path / INFO).is_file():
        return [path]
    if not path.is_dir():
        return []
    depths = (f"*/{INFO}", f"*/*/{INFO}", f"*/*/*/{INFO}")
    found = (sorted(path.glob(pattern)) for pattern in depths)
    return [file.parent for file in next(filter(None, found), [])]


def _choose(path: Path) -> Path:
    """Return the newest version of the only data set."""
    found = _builder_directories(path)
    if not found:
        raise FrameError(f"{path.name}: no {INFO} in it", "missing file")
    if len({directory.parent for directory in found}) > 1:
        names = ", ".join(directory.relative_to(path).as_posix() for directory in found[:5])
        raise FrameError(f"{path.name}: holds several data sets; name one of them: {names}")
    return max(found, key=_version)


def _version(directory: Path) -> tuple[int, ...]:
    parts = directory.name.split(".")
    return tuple(int(part) if part.isdecimal() and len(part) < 9 else -1 for part in parts)


def _stamps(root: Path, damage: DamageLog) -> Iterator[int]:
    """Yield the stamps by the manifest: the records are in its order."""
    if not (root / MANIFEST).is_file():
        return
    try:
        for row in DataSetManifest(root / MANIFEST, damage):
            yield row.stamp_ns
    except FrameError as error:
        damage.add("damaged manifest", f"{root.name}/{error}")


def _shard_entries(opened: OpenShard, stamps: list[int]) -> Iterator[LabelledEntry]:
    """Yield the records of a file. The manifest's stamps save reading every record to list it."""
    root, shard, first, damage = opened.root, opened.shard, opened.first, opened.damage
    try:
        path = inside(root, shard.name)
        positions = list(record_positions(path, opened.where, damage))
        written_ns = path.stat().st_mtime_ns
    except FrameError as error:
        damage.add(error.reason, str(error))
        return
    except OSError as error:
        damage.add("unreadable", f"{opened.where}: {error.strerror}")
        return
    if len(positions) < shard.length:
        missing = shard.length - len(positions)
        damage.add("missing records", f"{opened.where}, by its index", missing)
    known = opened.info.is_plain and len(stamps) == len(positions)
    plain = [Picture(opened.info.images[0], 0)]
    count = 0
    for number, position in enumerate(positions):
        spare_ns = written_ns + first + count
        stamp_ns, pictures = stamps[number] if known else 0, plain
        if not known:
            stamp_ns, pictures = list_record(opened, position, spare_ns)
        for picture in pictures:
            at_ns = stamp_ns if opened.info.is_plain else written_ns + first + count
            load = partial(load_record, opened, position, picture, first + number, at_ns)
            topic = "" if opened.info.is_plain else picture.feature
            yield LabelledEntry(at_ns, load, topic, place=Place(path, count))
            count += 1


def _examples(shards: Iterable[OpenShard]) -> Iterator[Mapping[str, Values]]:
    """Yield the records of all files that can be read."""
    for opened in shards:
        with suppress(FrameError, OSError):
            path = inside(opened.root, opened.shard.name)
            for position in record_positions(path, opened.where, DamageLog()):
                with suppress(FrameError):
                    yield read_whole(opened, position)


def _total_bytes(out: Path, rows: Iterable[ManifestRow]) -> int:
    total = 0
    for row in rows:
        try:
            total += inside(out, row.file).stat().st_size
        except FileNotFoundError:
            raise FrameError(f"{row.file}: is not there", "missing file") from None
    return total


def _remove_others(out: Path, count: int) -> None:
    """Remove the records of a data set of another size that lay here."""
    ours = {shard_name(number, count) for number in range(count)}
    for file in out.glob(f"{NAME}-*.tfrecord-*"):
        if file.name not in ours:
            file.unlink()

"""What has no bundle folder gets one, of links, for as long as it takes to open it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cloud_server.console.compare.contenders import USUAL, Contender
from fleet_model.bundle import (
    MANIFEST,
    WRITTEN_PROTOCOL,
    Manifest,
    WorkloadSpec,
    entry_of,
    entry_of_file,
    read_bundle,
    to_json,
)
from fleet_model.errors import BundleError
from fleet_model.litert.stage import Stage
from fleet_model.workloads.image_classifier import ImageClassifier

_NAME = "model.tflite"


@contextmanager
def bundle_of(one: Contender) -> Iterator[Path]:
    """Give the bundle folder of a model.

    Raises:
        BundleError: a file is no picture classifier, or a store's manifest is damaged.
        SettingsError: its input or labels are such that no classifier has.
    """
    if not one.manifest and not one.labels:
        yield Path(one.folder)
        return
    with TemporaryDirectory(prefix="fleetlearn-compare-") as made:
        folder = Path(made)
        if one.labels:
            _lay_out_file(Path(one.folder), one.labels, folder)
        else:
            _lay_out_stored(one, folder)
        yield folder


def _lay_out_stored(one: Contender, folder: Path) -> None:
    (folder / MANIFEST).write_text(one.manifest, "utf-8")
    manifest = read_bundle(folder, names=())
    for name, entry in manifest.needed(one.precision).items():
        (folder / name).symlink_to(Path(one.folder) / entry.sha256)


def _lay_out_file(file: Path, labels: tuple[str, ...], folder: Path) -> None:
    shapes = list(Stage(file, 1).inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != shapes[0][1]:
        raise BundleError(f"{file.name}: takes {shapes}, expected one square picture (S, S, 3)")
    workload = ImageClassifier(labels, image_size=shapes[0][0])
    manifest = Manifest(
        protocol=WRITTEN_PROTOCOL,
        version=0,
        created_at="",
        workload=WorkloadSpec(name="image-classifier", config=dict(workload.config)),
        labels=workload.labels,
        inputs=workload.task.inputs,
        task=workload.task,
        engines={USUAL: (_NAME,)},
        trainer=entry_of(b""),
        files={_NAME: entry_of_file(file)},
    )
    (folder / _NAME).symlink_to(file)
    (folder / MANIFEST).write_bytes(to_json(manifest))

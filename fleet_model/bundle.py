"""What is published: a manifest, the files it lists, and the trainer that robots learn with.

Every file is named by its sha256, so that a robot fetches only what it lacks: with a frozen trunk a
new version costs the bytes of a new head. A bundle directory holds `manifest.json` and its files.

  manifest.json --files--> trunk.tflite, head.tflite, ... (engines, one list of stages a precision)
       '--------trainer--> trainer.json --files--> trunk.tflite, trainer.tflite | frozen.safetensors

Both JSON files can gain fields. A reader keeps and ignores a field that it does not know, unless
the file names it in `critical`; a file of a higher `protocol` than its own it refuses.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_model import __version__
from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import BundleError
from fleet_model.protocol.version import FIRST_PROTOCOL, MAX_PROTOCOL, PROTOCOL, too_new

MANIFEST = "manifest.json"
TRAINER = "trainer.json"
MAX_JSON_BYTES = 1_000_000  # a manifest is about 2 kB
# The lowest protocol that understands the files that are written here: it stays behind PROTOCOL
# when only messages change, or agents would refuse models that they can run.
WRITTEN_PROTOCOL = 2

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A plain name: no separator, no leading dot, so a manifest can never point outside its directory.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]


_Model = TypeVar("_Model", bound=BaseModel)


class _Published(BaseModel):
    # A field of a newer server is kept, so that nothing is lost where a file is written again.
    model_config = ConfigDict(frozen=True, extra="allow")


class _File(_Published):
    """What both JSON files have."""

    format: Literal[1] = 1
    protocol: int = Field(default=FIRST_PROTOCOL, ge=1, le=MAX_PROTOCOL)  # lowest that reads it
    critical: tuple[str, ...] = ()  # fields that a reader must know, or refuse the file


class FileEntry(_Published):
    """One file by content."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)


class TensorSpec(_Published):
    """Shape without the batch axis, and dtype."""

    shape: tuple[int, ...]
    dtype: str = "float32"


# Of an input, target or output. It becomes part of a graph's signature: letters, digits, "_".
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,49}$")]


class Task(_Published):
    """What a model takes, is taught, answers, and is measured by. Shapes have no batch axis."""

    inputs: dict[TensorName, TensorSpec]
    targets: dict[TensorName, TensorSpec]
    outputs: dict[TensorName, TensorSpec]
    measures: dict[str, Literal["higher", "lower"]]  # name -> which direction is better
    # What Workload.decode finds: one of `classes` for the whole input, any number of boxes, a text.
    answer: Literal["class", "boxes", "text"]
    classes: tuple[str, ...] = ()  # names, in the order of the outputs; none for a text
    former: dict[str, str] = {}  # earlier name of a class, as recordings may have it -> its name

    @property
    def learned(self) -> tuple[str, ...]:
        """The labels that an example must have one of; none where boxes or texts are learned."""
        return self.classes if self.answer == "class" else ()


class WorkloadSpec(_Published):
    """Enough to rebuild the workload: `load_plugin(WORKLOADS, name)(**config)`."""

    name: str
    config: dict[str, Any]


class TrainerSpec(_File):
    """How robots train: named in every train message by the sha256 of its JSON.

    The part "litert" is missing where the gradient cannot be exported (whole model).
    """

    workload: WorkloadSpec
    trainable: str  # "head", "last-block" or "all"
    tensors: dict[str, TensorSpec]  # what travels, by variable path
    batch_size: int = Field(gt=0)  # static in the LiteRT graph
    files: dict[FileName, FileEntry]
    parts: dict[str, tuple[FileName, ...]]  # "litert", "keras", "torch" -> the files it needs
    task: Task | None = None  # None: written before tasks were described
    # Critical where it is set: without it a robot would look for layers named as A and B are.
    adapter: LoraSpec | None = None

    @property
    def variables(self) -> Mapping[str, TensorSpec]:
        """The model's own tensors that are trained: of `tensors`, W in the place of A and B."""
        if self.adapter is None:
            return self.tensors
        whole = {path: TensorSpec(shape=s) for path, s in self.adapter.targets.items()}
        return self.adapter.replaced(self.tensors, whole)

    def without_adapter(self) -> "TrainerSpec":
        """Return the specification of the same model as if its tensors were trained whole."""
        return self.model_copy(update={"tensors": dict(self.variables), "adapter": None})


class Manifest(_File):
    """Describe one published model."""

    version: int = Field(ge=0)  # Checkpoint.version that it was exported from
    created_at: str  # UTC, ISO 8601
    workload: WorkloadSpec
    labels: tuple[str, ...]  # Task.classes, for agents of 0.1.0
    inputs: dict[str, TensorSpec]  # Task.inputs, for agents of 0.1.0
    task: Task | None = None  # None: written before tasks were described, see `described_task`
    engines: dict[str, tuple[FileName, ...]]  # precision, e.g. "fp32", "int8" -> stages in order
    trainer: FileEntry  # trainer.json
    files: dict[FileName, FileEntry]
    workload_files: tuple[FileName, ...] = ()  # what the workload reads, see Workload
    metrics: dict[str, float] = {}
    # File of another tool that the engine is: robots run it, and rounds train another model. "" of
    # a model that was trained here.
    imported: str = Field(default="", max_length=100)
    # The version whose weights these are, if a person has taken a newer one back: robots then ask
    # only whether it runs.
    rolls_back_to: int | None = None

    @property
    def described_task(self) -> Task:
        """The task. A manifest that describes none is that of an image classifier."""
        return self.task or Task(
            inputs=self.inputs,
            targets={"class": TensorSpec(shape=(), dtype="int32")},
            outputs={"logits": TensorSpec(shape=(len(self.labels),))},
            measures={"accuracy": "higher", "loss": "lower"},
            answer="class",
            classes=self.labels,
        )

    def needed(self, precision: str) -> Mapping[str, FileEntry]:
        """Return the files that the engine of one precision and its workload need.

        Raises:
            BundleError: the bundle has no such precision.
        """
        if precision not in self.engines:
            raise BundleError(
                f"version {self.version} has no {precision!r} engine; choose "
                f"{', '.join(sorted(self.engines))}"
            )
        names = (*self.engines[precision], *self.workload_files)
        return {name: self.files[name] for name in names}


@dataclass(frozen=True, slots=True)
class Offer:
    """A manifest with the bytes that it came as.

    They are stored as they are: a signature covers bytes, and JSON can be written in many ways.
    """

    content: bytes
    manifest: Manifest


def read_offer(content: bytes) -> Offer:
    """Check the bytes of a manifest and keep them; raises BundleError as `parse_manifest` does."""
    return Offer(content, parse_manifest(content))


def parse_manifest(content: bytes) -> Manifest:
    """Check and return a manifest.

    Raises:
        BundleError: it is too long, not JSON, has missing or wrong fields, is of a higher protocol,
            or names a critical field that this version does not know.
    """
    manifest = _parse(Manifest, content, MANIFEST)
    named = {f"engine {key}": stages for key, stages in manifest.engines.items()}
    for what, names in {**named, "workload": manifest.workload_files}.items():
        if missing := [name for name in names if name not in manifest.files]:
            raise BundleError(f"{MANIFEST}: {what} names {missing[0]}, not in files")
    return manifest


def parse_trainer(content: bytes) -> TrainerSpec:
    """Check and return a trainer specification; raises BundleError as `parse_manifest` does."""
    spec = _parse(TrainerSpec, content, TRAINER)
    for part, names in spec.parts.items():
        if missing := [name for name in names if name not in spec.files]:
            raise BundleError(f"{TRAINER}: part {part} names {missing[0]}, which is not in files")
    for name, shape in (spec.adapter.factors if spec.adapter else {}).items():
        if name not in spec.tensors or spec.tensors[name].shape != shape:
            raise BundleError(f"{TRAINER}: adapter has {name} of shape {shape}, tensors have not")
    return spec


def to_json(value: BaseModel) -> bytes:
    """Return the JSON of a manifest or trainer that is made here: equal values, equal hashes.

    What was not set is left out. A file that came from elsewhere is kept as its own bytes.
    """
    return value.model_dump_json(indent=1, exclude_unset=True).encode() + b"\n"


def sha256_of(content: bytes) -> str:
    """Return the hex digest."""
    return hashlib.sha256(content).hexdigest()


def entry_of(content: bytes) -> FileEntry:
    """Return the entry of a file with this content."""
    return FileEntry(sha256=sha256_of(content), size_bytes=len(content))


def sha256_of_file(path: Path) -> str:
    """Return the hex digest of a file, which is never in memory as a whole."""
    with path.open("rb") as stream:
        return _digest(stream)


def entry_of_file(path: Path) -> FileEntry:
    """Return the entry of a file."""
    return FileEntry(sha256=sha256_of_file(path), size_bytes=path.stat().st_size)


def require_file(path: Path, entry: FileEntry) -> None:
    """Raise BundleError unless the file at `path` is what `entry` says."""
    try:
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise BundleError(
                f"{path.name}: {size} bytes, expected {entry.size_bytes}; fetch it again"
            )
        actual = sha256_of_file(path)
    except FileNotFoundError:
        raise BundleError(
            f"{path.name}: missing; `edge-agent run` fetches what engine.precision names"
        ) from None
    if actual != entry.sha256:
        raise BundleError(
            f"{path.name}: sha256 is {actual[:12]}, expected {entry.sha256[:12]}; it was changed "
            "or damaged on the way: fetch it again"
        )


def read_bundle(directory: Path, names: Iterable[str] | None = None) -> Manifest:
    """Return the manifest of a bundle directory after checking files against it.

    Args:
        directory: holds manifest.json and the files.
        names: the files to check; None checks those that are there.
    """
    try:
        manifest = parse_manifest((directory / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{directory.name}: no {MANIFEST}; is it a bundle?") from None
    present = [name for name in manifest.files if (directory / name).exists()]
    for name in present if names is None else names:
        if name not in manifest.files:
            raise BundleError(f"{directory.name}: {name} is not in the manifest")
        require_file(directory / name, manifest.files[name])
    return manifest


def _digest(stream: BinaryIO) -> str:  # hashlib.file_digest needs Python 3.11
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _parse(model: type[_Model], content: bytes, name: str) -> _Model:
    if len(content) > MAX_JSON_BYTES:
        raise BundleError(f"{name}: {len(content)} bytes, expected at most {MAX_JSON_BYTES}")
    _require_understood(model, content, name)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BundleError(f"{name}: {where}: {first['msg']}") from None


def _require_understood(model: type[BaseModel], content: bytes, name: str) -> None:
    """Refuse what only a newer version can read, whatever else such a file may hold."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return  # the model says what is wrong
    if not isinstance(fields, dict):
        return
    for key, known in (("protocol", PROTOCOL), ("format", 1)):
        number = fields.get(key)
        if isinstance(number, int) and number > known:
            words = (
                too_new(name, number)
                if key == "protocol"
                else (f"{name} has format {str(number)[:20]}, expected {known}: update the agent")
            )
            raise BundleError(words)
    critical = fields.get("critical")
    for field in critical if isinstance(critical, list) else ():
        if isinstance(field, str) and field not in model.model_fields:
            raise BundleError(
                f"{name}: its field {ascii(field)[:60]} is critical, and fleetlearn {__version__} "
                "does not know it: update the agent"
            )

"""What `edge-agent predict` is asked for, and what is refused of it before the work."""

from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.source import is_bag, shown
from edge_agent.data.label_formats.coco.results import pictures_file
from edge_agent.data.label_formats.label_topic import has_topic
from edge_agent.data.label_words import require_label_source
from edge_agent.data.labels import TOLERANCE_S
from edge_agent.data.table_paths import is_tables
from edge_agent.examples.source import SourceSpec
from edge_agent.models.prediction_files import PICTURES
from edge_agent.robot.settings import TEXTS
from fleet_model.command_line.output_file import STDOUT, require_folder, require_output
from fleet_model.errors import SettingsError
from fleet_model.tables.columns import Columns
from fleet_model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What to run over what, and where the answers go."""

    bundle: Path  # bundle directory
    path: Path | None = None  # bag, data set, image, video, live source, table of texts
    source: SourceSpec | None = None  # without a path: the examples of this robot
    precision: str = "fp32"
    topic: str = ""  # camera topic of a bag; "" takes the only one
    label_topic: str = ""  # topic of a bag with the truth, or a CSV file or data set that has it
    usual_labels: str = ""  # label topic of this robot's own bags, for bags that have it
    tolerance_s: float = TOLERANCE_S
    json: bool = False  # one JSON object on stdout, no CSV there
    csv_file: Path | None = None  # CSV goes here, not to stdout
    annotate: Path | None = None  # directory for a picture of every frame
    confusion: Path | None = None  # PNG
    curves: Path | None = None  # PNG
    coco: Path | None = None  # results as JSON; a second file beside it says which picture is which
    min_score: float | None = None  # of boxes that are listed and drawn; None: the workload's
    limit: int | None = None  # frames
    columns: Columns = Columns()  # of a table; empty: found out  # noqa: RUF009
    encoding: str = ""  # of a table

    @property
    def of_texts(self) -> bool:
        """Whether inputs are texts of tables."""
        if self.path is not None:
            return is_tables(self.path)
        return self.source is not None and self.source.name == TEXTS


def require_outputs(options: PredictOptions) -> None:
    """Raise SettingsError or StorageError for outputs that cannot be written."""
    require_output(options.csv_file, "--csv")
    for picture, name in ((options.confusion, "--confusion"), (options.curves, "--curves")):
        require_output(picture, name, PICTURES)
        if picture == STDOUT and (options.json or options.csv_file in (None, STDOUT)):
            raise SettingsError(f"{name} -: stdout has the predictions already; name a file")
    if options.coco == STDOUT:
        raise SettingsError("--coco -: there are two files; name the first, e.g. results.json")
    require_output(options.coco, "--coco", (".json",))
    require_output(options.coco and pictures_file(options.coco), "--coco")
    if options.annotate:
        require_folder(options.annotate, f"--annotate {options.annotate}")
    if options.csv_file == STDOUT and options.json:
        raise SettingsError("--csv - and --json: both would go to stdout; choose one")


def require_labels(options: PredictOptions) -> None:
    """Raise SettingsError for a word that names no labels of what lies at the path.

    FrameError if nothing lies there, or a folder of bags.
    """
    path = options.path
    if path is None:
        return
    if not options.of_texts:
        require_label_source((path,), options.label_topic)
        if options.columns != Columns():
            raise SettingsError(f"{shown(path)}: is no table, so it has no columns to name")
    elif options.label_topic:
        raise SettingsError(
            f"{shown(path)}: is a table; name the column of its labels with --label-column"
        )


def require_suited(options: PredictOptions, workload: Workload) -> None:
    """Raise SettingsError before the work for what such a model cannot read or have as output."""
    answer, of_texts = workload.task.answer, options.of_texts
    if of_texts and getattr(workload, "raw_kind", "") == "frame":
        name = shown(options.path) if options.path else "examples.source"
        raise SettingsError(f"{name}: holds texts in a table, and this model takes pictures")
    if of_texts and (options.annotate or options.coco):
        raise SettingsError("--annotate and --coco are of pictures, and these are texts")
    if options.confusion and answer != "class":
        raise SettingsError(
            f"--confusion needs a model that answers classes; this one answers {answer}"
        )
    if options.coco and answer != "boxes":
        raise SettingsError(f"--coco needs a model that answers boxes; this one answers {answer}")
    if options.curves and not hasattr(workload, "details"):
        raise SettingsError(
            f"--curves: a model that answers {answer} has none; leave the option out"
        )


def with_usual_labels(options: PredictOptions) -> PredictOptions:
    """Take the labels of a bag from this robot's usual topic where the operator names none."""
    if options.path is None or options.label_topic or not is_bag(options.path):
        return options
    if options.usual_labels and has_topic(BagFrames(options.path), options.usual_labels):
        return replace(options, label_topic=options.usual_labels)
    if options.confusion or options.curves:  # before the whole bag has been read for nothing
        name = "--confusion" if options.confusion else "--curves"
        raise SettingsError(
            f"{name} needs true labels: name the topic of {options.path.name} that has them "
            "with --label-topic (`edge-agent inspect` lists its topics), or a CSV file"
        )
    return options

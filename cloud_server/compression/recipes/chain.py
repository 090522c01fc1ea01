"""The steps of a recipe, one after the other; what is done is not done again."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cloud_server.compression.recipes.files import (
    FLOAT_FILE,
    convert,
    export,
    quantize,
    require_smaller,
)
from cloud_server.compression.recipes.learning import (
    ABOUT,
    Lesson,
    answer,
    distill,
    prune_round,
    read_checkpoint,
    train_teacher,
)
from cloud_server.compression.recipes.measure import Candidate, Measure, benchmark, measures_of
from cloud_server.compression.recipes.pictures import read_pictures
from cloud_server.compression.recipes.recipe import (
    Benchmark,
    Distill,
    Export,
    Prune,
    Quantize,
    Recipe,
    Step,
    Teacher,
    step_name,
)
from cloud_server.models.backend import Progress
from cloud_server.pipelines.steps import content_digest, digest_of_code, folder_of, key_of, step

_ROOT = Path(__file__).parents[3]
# What of this project decides a result, and the libraries that do.
_SOURCES = (
    "cloud_server/compression",
    "cloud_server/models",
    "cloud_server/pipelines",
    "fleet_model",
)
_LIBRARIES = (
    "ai-edge-litert",
    "keras",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "tensorflow",
    "tensorflow-cpu",
    "tf2onnx",
)


class Done(NamedTuple):
    """A step's result."""

    key: str
    folder: Path


class Network(NamedTuple):
    """A network and its float32 file."""

    made: Done
    converted: Done

    @property
    def about(self) -> Mapping[str, Any]:
        """Return the number of its parameters, and its file's error."""
        about: Mapping[str, Any] = _read(self.converted)
        return about


class Chain:
    """What a checkpoint becomes by the steps of recipes; they share what is done."""

    def __init__(self, checkpoint: Path, work: Path, progress: Progress) -> None:
        """Remember it; `work` is the folder of all results.

        Raises:
            FrameError: the checkpoint cannot be read.
        """
        self._checkpoint, self._work, self._tell = checkpoint, work, progress
        self.digest = content_digest(checkpoint)
        self._data: dict[Path, str] = {}  # folder -> digest, which takes its time
        self._known: dict[str, Done] = {}  # by key: recipes of a sweep share most steps

    def files(self, recipe: Recipe, chosen: Mapping[int, str]) -> Iterator[Candidate]:
        """Yield the files of a recipe, the teacher's first, as they are made.

        Args:
            recipe: what to do.
            chosen: step number (from 0) -> words of what a sweep has chosen there.

        Raises:
            ExportError: a step makes a file larger, or one that computes something else.
            FleetError: as the steps do.
        """
        pictures, lesson, teacher = self._begun(recipe)
        network = teacher
        for number, how in enumerate(recipe.step[:-1]):
            name = _name(recipe.step, number, chosen)
            if isinstance(how, Teacher):
                yield _candidate(name, network)
            elif isinstance(how, Distill | Prune):
                network = self._learned(network, lesson, how)
                yield _candidate(name, network)
            elif isinstance(how, Quantize):
                yield from self._quantized(name, network, pictures, how)
            elif isinstance(how, Export):
                yield from self._exported(name, network, pictures, how)

    def about(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return labels, and size (pixels), of the checkpoint."""
        about: Mapping[str, Any] = _read(self._start(recipe))
        return about

    def measured(self, recipe: Recipe, found: list[Candidate]) -> list[Measure]:
        """Return the measures of files, in their order."""
        pictures, _, _ = self._begun(recipe)
        how = recipe.step[-1]
        assert isinstance(how, Benchmark)
        names = [(one.name, one.file.parent.name, one.file.name) for one in found]
        given = {"pictures": pictures.key, "files": names, "how": _values(how)}
        done = self._done(
            "benchmark", given,
            lambda into: benchmark(found, pictures.folder, how, into, self._tell),
        )  # fmt: skip
        return measures_of(done.folder)

    def _begun(self, recipe: Recipe) -> tuple[Done, "_Lesson", Network]:
        """Return pictures, what there is to learn, and the teacher."""
        data, how = recipe.data, recipe.step[0]
        assert isinstance(how, Teacher)
        start = self._start(recipe)
        about = _read(start)
        if data.folder not in self._data:
            self._data[data.folder] = content_digest(data.folder)
        asked = {"data": self._data[data.folder], "held_out": data.held_out, **about}
        pictures = self._done(
            "pictures", asked,
            lambda into: read_pictures(data, about["labels"], about["size"], into, self._tell),
        )  # fmt: skip
        teacher = start
        if how.epochs:
            given = {"network": start.key, "pictures": pictures.key, "how": _values(how)}

            def taught(into: Path, state: Path) -> None:
                lesson = Lesson(pictures.folder, None, state)
                train_teacher(start.folder, lesson, how, into, self._tell)

            teacher = self._resumed("teacher", given, taught)
        mirrored = any(getattr(one, "mirrored", False) for one in recipe.step[1:])
        lesson = _Lesson(pictures, teacher, mirrored=mirrored)
        return pictures, lesson, self._converted(teacher, pictures)

    def _start(self, recipe: Recipe) -> Done:
        data, how = recipe.data, recipe.step[0]
        assert isinstance(how, Teacher)
        return self._done(
            "checkpoint",
            {"file": self.digest, "labels": data.labels, "new_head": how.new_head},
            lambda into: read_checkpoint(self._checkpoint, data, how, into),
        )

    def _learned(self, network: Network, lesson: "_Lesson", how: Distill | Prune) -> Network:
        """Return the network after a step; raises ExportError where its file is larger."""
        answers = self._done(
            "answers",
            {"teacher": lesson.teacher.key, "pictures": lesson.pictures.key, "m": lesson.mirrored},
            lambda into: answer(
                lesson.teacher.folder, lesson.pictures.folder, into, mirrored=lesson.mirrored
            ),
        )
        made = network.made
        for number in range(how.rounds if isinstance(how, Prune) else 1):
            made = self._round(made, lesson, answers, how, number)
        after = self._converted(made, lesson.pictures)
        may_equal = isinstance(how, Distill) or how.kind == "magnitude"
        files = (one.converted.folder / FLOAT_FILE for one in (after, network))
        require_smaller(*files, or_equal=may_equal)
        return after

    def _round(
        self, made: Done, lesson: "_Lesson", answers: Done, how: Distill | Prune, number: int
    ) -> Done:
        given = {"network": made.key, "answers": answers.key, "how": _values(how), "n": number}

        def learn(into: Path, state: Path) -> None:
            what = Lesson(lesson.pictures.folder, answers.folder, state)
            if isinstance(how, Distill):
                distill(made.folder, what, how, into, self._tell)
            else:
                prune_round(made.folder, what, how, number, into, self._tell)

        return self._resumed(how.do, given, learn)

    def _converted(self, made: Done, pictures: Done) -> Network:
        converted = self._done(
            "convert",
            {"network": made.key, "pictures": pictures.key},
            lambda into: convert(made.folder, pictures.folder, into),
        )
        return Network(made, converted)

    def _quantized(
        self, name: str, network: Network, pictures: Done, how: Quantize
    ) -> Iterator[Candidate]:
        done = self._done(
            "quantize",
            {"converted": network.converted.key, "how": _values(how)},
            lambda into: quantize(
                network.made.folder, network.converted.folder, pictures.folder, how, into
            ),
        )
        for kind in how.kinds:
            yield Candidate(
                _titled(name, kind), done.folder / f"model_{kind}.tflite", network.made.folder,
                kind, _read(done)["errors"][kind], network.about["parameters"],
            )  # fmt: skip

    def _exported(
        self, name: str, network: Network, pictures: Done, how: Export
    ) -> Iterator[Candidate]:
        done = self._done(
            "export",
            {"converted": network.converted.key, "how": _values(how)},
            lambda into: export(network.made.folder, pictures.folder, how, into),
        )
        for kind in how.formats:
            if kind == "onnx":  # the other one is that of the step before
                yield Candidate(
                    _titled(name, kind), done.folder / f"model.{kind}", network.made.folder,
                    "fp32", _read(done)["errors"][kind], network.about["parameters"],
                )  # fmt: skip

    def _done(self, name: str, given: Mapping[str, Any], make: Callable[[Path], None]) -> Done:
        key = key_of(name, given, _code())
        if key not in self._known:
            self._known[key] = Done(key, step(self._work, name, key, make, self._tell))
        return self._known[key]

    def _resumed(
        self, name: str, given: Mapping[str, Any], make: Callable[[Path, Path], None]
    ) -> Done:
        """Return the result of a step that, killed, goes on from a file beside it."""
        state = folder_of(self._work, name, key_of(name, given, _code())).with_suffix(".state")
        done = self._done(name, given, lambda into: make(into, state))
        state.unlink(missing_ok=True)
        return done


class _Lesson(NamedTuple):
    """What there is to learn from."""

    pictures: Done
    teacher: Done
    mirrored: bool  # whether a step asks for mirror images


def _candidate(name: str, network: Network) -> Candidate:
    file, about = network.converted.folder / FLOAT_FILE, network.about
    return Candidate(name, file, network.made.folder, "fp32", about["error"], about["parameters"])


def _name(steps: tuple[Step, ...], number: int, chosen: Mapping[int, str]) -> str:
    """Return what a step is called in tables, with what a sweep has chosen up to it."""
    words = ", ".join(words for at, words in sorted(chosen.items()) if at <= number)
    return f"{step_name(steps, number)} ({words})" if words else step_name(steps, number)


def _titled(name: str, kind: str) -> str:
    """Return the name of a step's file of a kind: of "quantize (width 1)" the "int8 (width 1)"."""
    return kind + name.partition(" ")[1] + name.partition(" ")[2]


def _read(done: Done) -> Any:
    return json.loads((done.folder / ABOUT).read_text("utf-8"))


def _values(how: Step) -> Mapping[str, Any]:
    return how.model_dump(mode="json")


@cache
def _code() -> str:
    return digest_of_code(_ROOT, _LIBRARIES, _SOURCES)

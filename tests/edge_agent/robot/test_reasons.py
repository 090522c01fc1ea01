"""What a failure is called when it leaves the robot."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.robot.reasons import outcome_of, without_paths
from edge_agent.training.training_job import pack_error, unpack_update
from fleet_model.errors import BundleError, FrameError, TrainingError

pytestmark = pytest.mark.base

# Names as they are on disks: words, spaces, punctuation inside of words. Punctuation before a space
# ends a clause: what follows cannot be told from the sentence.
NAME = st.from_regex(r"\A[a-z0-9_]{1,4}([ .'+@#=~:-][A-Z0-9_]{1,4}){0,3}\Z")
PATHS = st.lists(NAME, min_size=2, max_size=5).map(lambda names: str(PurePosixPath("/", *names)))
SENTENCES = st.sampled_from(
    [
        "{}: no frames",
        "no frames in '{}'",
        'bag "{}" has no metadata.yaml; record again',
        "[Errno 2] No such file or directory: '{}'",
        "[Errno 18] Invalid cross-device link: '{}' -> '{}'",
        "({}) is not a bag",
        "{}, line 3: damaged",
        "image=file://{}; skipped",
    ]
)


@given(path=PATHS, sentence=SENTENCES)
def test_no_path_leaves_the_robot(path, sentence):
    reason = outcome_of(BundleError(sentence.format(path, path))).words
    names = PurePosixPath(path).parts[1:]
    assert "<path>" in reason
    assert path not in reason
    assert not any(f"/{name}" in reason for name in names)


def test_what_a_frame_error_names_stays_on_the_robot():
    # A folder's name is the label of its pictures.
    reason = outcome_of(FrameError("photos/circle/0001.jpg: a damaged jpeg")).words
    assert (
        reason == "its recordings cannot be read; see `edge-agent status` or the log on the robot"
    )


def test_a_camera_that_must_be_named_is_told_without_a_name():
    error = FrameError("circle.mcap: name one camera topic: /x, /y", "several camera topics")
    words = outcome_of(error).words
    assert words.startswith("several topics of its recordings could be its camera; see ")


@pytest.mark.parametrize("kind", ["label", "camera"])
def test_a_wrong_topic_is_told_without_a_name(kind):
    error = FrameError(f"circle.mcap: no {kind} topic /x", f"wrong {kind} topic")
    with pytest.raises(FrameError) as raised:  # as it comes out of the training process
        unpack_update(pack_error(error))
    reason = outcome_of(raised.value).words
    assert reason.startswith(f"its {kind} topic is in none of its recordings, or ")
    assert "circle" not in reason
    assert "/x" not in reason


@given(path=PATHS, sentence=SENTENCES)
def test_quoted_paths_and_paths_without_spaces_vanish_whole(path, sentence):
    if "'" not in sentence:
        path = path.replace(" ", "_")
    said = sentence.format("", "").replace("''", "'<path>'").replace('""', '"<path>"')
    words = set(without_paths(sentence.format(path, path)).split())
    assert not [word for word in words if word not in said.split() and "<path>" not in word]


@pytest.mark.parametrize(
    "text",
    [
        "head/kernel has shape (8, 3), expected (8, 2)",
        "robot hall-1/r2: image/jpeg, 3/4 frames",
        "set training.trainer to one of: keras, litert",
        "version 3 has no 'int8' engine",
    ],
)
def test_what_is_no_path_stays(text):
    assert without_paths(text) == text


@pytest.mark.parametrize("path", ["~/bags", "~bob/bags/x", "C:\\Users\\bob", "\\\\host\\share"])
def test_homes_and_drives_are_paths_too(path):
    assert without_paths(f"at {path}: no frames") == "at <path>: no frames"


def test_a_bug_is_told_without_its_words_and_logged(caplog):
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("/home/bob/secret")
    assert outcome_of(caught.value).words == (
        "training failed with ZeroDivisionError; details are in the robot's log"
    )
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text


PLUGIN = """
from fleet_model.errors import BusyError, TrainingError

class SecretFolderError(ValueError):
    pass

def fit(error):
    raise error

WORDS = "bags/circle/front door 0001.jpg cannot be read"
ERRORS = [TrainingError(WORDS), BusyError(WORDS), SecretFolderError(WORDS)]
"""


@pytest.mark.parametrize("number", range(3))
def test_no_word_and_no_name_of_a_plug_in_leaves_the_robot(number):
    plugin = {"__name__": "my_trainer"}
    exec(PLUGIN, plugin)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        plugin["fit"](plugin["ERRORS"][number])
    error = raised.value
    if number < 2:  # our own classes: they come out of the training process as they went in
        with pytest.raises(type(error), match="front door") as raised:  # for the robot's own log
            unpack_update(pack_error(error))

    outcome = outcome_of(raised.value)

    assert outcome.kind == ("busy" if number == 1 else "failed")
    assert "details are in the robot's log" in outcome.words
    for word in ("circle", "door", "0001", "bags", "SecretFolderError", "my_trainer"):
        assert word not in outcome.words


def test_what_is_ours_is_told_in_words_and_what_python_raises_by_its_class():
    with pytest.raises(TrainingError) as ours:
        unpack_update(pack_error(TrainingError("no examples to train on")))

    assert outcome_of(ours.value).words == "no examples to train on"
    assert "with FileNotFoundError;" in outcome_of(FileNotFoundError(2, "x")).words

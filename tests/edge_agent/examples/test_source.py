"""Examples of a source of your own, and of the one that is built in."""

import json
from collections import Counter

import pytest

from edge_agent.agent.service import serve
from edge_agent.examples.source import SourceSpec, require_source, source_for, source_of
from edge_agent.examples.taught import TEACHERS
from edge_agent.robot.settings import AgentSettings, load_settings
from fleet_model.errors import SettingsError

PLUGIN = """
from fleet_model.types import Example

class Gauges:
    left_out = {"broken gauge": 2}

    def __init__(self, count, unit="bar"):
        self._count, self._unit = count, unit

    def examples(self):
        for number in range(self._count):
            raw = {"pressure": [number, number + 1.0], "unit": self._unit}
            yield Example(raw=raw, key=f"gauge/{number}", targets={"leak": number % 2})

def nothing():
    return 7
"""


@pytest.fixture
def gauges(tmp_path, monkeypatch):
    """Install a package with an entry point, as pip does."""
    (tmp_path / "site" / "gauges-1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "gauges.py").write_text(PLUGIN)
    information = tmp_path / "site" / "gauges-1.dist-info"
    information.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: gauges\nVersion: 1\n")
    information.joinpath("entry_points.txt").write_text(
        "[fleetlearn.examples]\npressure = gauges:Gauges\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def settings_of(tmp_path):
    def read(examples):
        path = tmp_path / "agent.toml"
        path.write_text(f'[server]\naddress = "localhost:1"\n\n{examples}\n')
        return load_settings(path, {})

    return read


@pytest.mark.parametrize("name", ["pressure", "gauges:Gauges"])
def test_a_source_of_ones_own_is_opened_by_its_name_with_its_options(gauges, settings_of, name):
    settings = settings_of(f'[examples]\nsource = "{name}"\n[examples.options]\ncount = 3')
    assert settings.examples.wanted
    spec = SourceSpec(**json.loads(json.dumps({"name": name, "options": {"count": 3}})))
    assert source_of(settings) == spec
    for source in (source_of(settings).open(), spec.open(["cup"], boxes=True)):
        examples = list(source.examples())
        assert [example.key for example in examples] == ["gauge/0", "gauge/1", "gauge/2"]
        assert examples[1].raw == {"pressure": [1, 2.0], "unit": "bar"}
        assert (examples[1].label, examples[1].boxes) == (None, ())
        assert examples[1].targets == {"leak": 1}
        assert source.left_out == {"broken gauge": 2}


def test_frames_are_the_source_unless_another_is_named(image_folder, settings_of):
    folder = image_folder("frames", {"circle": 5, "square": 5, "moon": 3})
    settings = settings_of(f"[examples]\npaths = [{str(folder)!r}]")
    source = source_of(settings).open(["circle", "square"])
    assert {example.label for example in source.examples()} == {"circle", "square"}
    assert source.left_out == {"labelled 'moon', which is not learned": 3}


def test_other_words_for_a_label_are_taken_for_it_and_counted(image_folder, settings_of, caplog):
    folder = image_folder("frames", {"circle": 5, "Square": 4, "box": 3, "moon": 2})
    settings = settings_of(
        f'[examples]\npaths = [{str(folder)!r}]\naliases = {{Square = "box"}}\nheld_out = 0'
    )
    with caplog.at_level("INFO"):  # the fleet calls its boxes squares now
        source = source_of(settings).renamed({"box": "square"})
        examples = list(source.examples(["circle", "square"]))
    assert Counter(one.label for one in examples) == {"circle": 5, "square": 7}
    assert len({one.key for one in examples}) == 12
    assert "labels by aliases: 4 'Square' as 'square', 3 'box' as 'square'" in caplog.text
    assert "2 labelled 'moon', which is not learned" in caplog.text


def test_aliases_may_come_from_the_environment_and_wrong_ones_are_told(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('[server]\naddress = "localhost:1"\n')
    variable = {"EDGE_AGENT_EXAMPLES__ALIASES": '{Brick = "brick"}'}
    assert load_settings(path, variable).examples.aliases == {"Brick": "brick"}
    path.write_text('[server]\naddress = "localhost:1"\n[examples]\naliases = {Brick = 3}\n')
    with pytest.raises(SettingsError, match=r"examples\.aliases.*expected e\.g\. \{Brick"):
        load_settings(path, {})


def test_without_labels_every_frame_is_an_example_with_what_is_known_of_it(
    image_folder, settings_of
):
    folder = image_folder("frames", {"circle": 5, "unlabeled": 4})
    settings = settings_of(f"[examples]\npaths = [{str(folder)!r}]\nheld_out = 0")
    source = source_of(settings).open()
    labels = [example.label for example in source.examples()]
    assert labels == ["circle"] * 5 + [None] * 4
    assert source.left_out == {}


def test_where_boxes_are_learned_frames_without_any_are_left_out(image_folder, settings_of):
    folder = image_folder("frames", {"circle": 5})
    source = source_of(settings_of(f"[examples]\npaths = [{str(folder)!r}]"))
    counts = Counter()
    assert list(source.examples(["circle"], counts, boxes=True)) == []
    assert counts == {"unlabelled": 5}
    assert len(list(source.open(["circle"], boxes=False).examples())) == 5


def test_what_is_wrong_with_a_source_is_said_in_the_words_of_the_settings(gauges):
    with pytest.raises(SettingsError, match=r"cannot be opened with the options cuont: .*'cuont'"):
        SourceSpec(name="pressure", options={"cuont": 3}).open()
    with pytest.raises(SettingsError, match=r"examples\.options, which are none: .*'count'"):
        SourceSpec(name="pressure", options={}).open()
    with pytest.raises(SettingsError, match=r"gives a int, expected an object with a method exam"):
        SourceSpec(name="gauges:nothing", options={}).open()
    with pytest.raises(SettingsError, match="has no 'Missing'"):
        SourceSpec(name="gauges:Missing", options={}).open()


def test_an_agent_does_not_start_with_a_source_that_there_is_not(gauges, settings_of, tmp_path):
    settings: AgentSettings = settings_of('[examples]\nsource = "presure"')
    with pytest.raises(
        SettingsError, match=r"no source 'presure'; choose frames, pressure, texts or mod"
    ):
        serve(settings)
    for name in ("frames", "pressure", "not_there:yet"):
        require_source(name)


def test_only_who_trains_learns_from_a_teacher(settings_of):
    settings = settings_of('[examples]\npaths = ["frames"]')
    assert "taught" not in source_of(settings, pseudo=True).options
    (settings.state / TEACHERS).mkdir(parents=True)
    for trains, weight in ((True, 0.5), (False, 0)):
        assert source_of(settings, pseudo=trains).options["taught"] == {
            "folder": str(settings.state / TEACHERS), "weight": weight,
        }  # fmt: skip


def test_tables_are_read_as_texts_and_all_else_as_frames(image_folder, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n")
    frames = image_folder("frames", {"circle": 1})
    assert source_for([tmp_path / "t.csv", tmp_path / "not-yet.jsonl"]) == "texts"
    assert source_for([frames, tmp_path / "not-yet"]) == source_for([]) == "frames"
    with pytest.raises(SettingsError, match=r"^t\.csv is a table of texts, and frames is none; a"):
        source_for([frames, tmp_path / "t.csv"])


def test_a_robot_of_texts_without_paths_never_trains(settings_of):
    assert not settings_of('[examples]\nsource = "texts"').examples.wanted
    assert settings_of('[examples]\nsource = "texts"\npaths = ["t.csv"]').examples.wanted

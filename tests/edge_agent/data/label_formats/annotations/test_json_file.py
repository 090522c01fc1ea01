"""Files that look like those of the tools and hold anything."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.annotations import json_file
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

WORDS = re.findall(
    r"\S+",
    """annotations annotation image data result type value rectanglelabels polygonlabels choices x y
    width height rotation original_width original_height points was_cancelled samples filepath
    ground_truth _cls detections Detections Detection Classification label bounding_box labels
    classes polylines objects size classTitle geometryType rectangle polygon exterior tags name
    shapes imagePath shape_type circle flags annotation_id lead_time coordinates a.jpg""",
)
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.just(10**400) | st.floats()
contents = st.recursive(
    leaves | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)
    ),
    max_leaves=40,
)
TASK = {"data": {"image": "a.jpg"}, "annotations": [{"result": []}]}
DEEP = {
    "label studio": lambda each: [TASK | {"annotations": [{"result": [each, {"value": each}]}]}],
    "short": lambda each: [{"annotation_id": 1, "lead_time": 1, "image": "a.jpg", "label": each}],
    "samples": lambda each: {"samples": [{"filepath": "a.jpg", "ground_truth": each}]},
    "labels": lambda each: {"labels": {"a": each}, "classes": each},
    "supervisely": lambda each: {"objects": [each], "size": {}, "tags": each},
    "labelme": lambda each: {"shapes": [each], "imagePath": "a.jpg", "flags": each},
    "createml": lambda each: [{"image": "a.jpg", "annotations": each}],
    "anything": lambda each: each,
}


@pytest.mark.parametrize("kind", DEEP)
@given(contents)
def test_any_content_is_read_or_damage(kind, inner):
    for reader in json_file._READERS:
        with suppress(FrameError):
            told = list(reader(DEEP[kind](inner), "x.json", DamageLog()) or ())
            assert all(isinstance(name, str) for each in told for name in each.names)
            assert all(isinstance(each.label, str) for each in told)


def test_a_file_that_is_no_json_is_nobodys(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"shapes": [')
    assert json_file.told_by_json(tmp_path / "x.json", "x.json", DamageLog()) is None

"""Whatever happens to the files of a data set: frames, damage or FrameError, and nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.data.label_formats.data_set import FORMATS, open_format
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base


def change(content, draw):
    """Return the content with a few bytes changed, taken out, doubled or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "remove", "double", "insert"]))
        if kind == "flip" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "remove":
            del content[at : at + draw(st.integers(1, 20))]
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 40))]
        else:
            content[at:at] = draw(st.sampled_from([b"-", b"9" * 20, b"[", b"\0", b"\xff", b"null"]))
    return bytes(content)


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
@settings(
    max_examples=settings.default.max_examples // 3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_changed_files_end_in_frames_damage_or_frame_errors(
    data_sets, make_box, tmp_path_factory, form, data
):
    data_sets.root = tmp_path_factory.mktemp("damaged")
    rows = [data_sets.row(i, label="bin", boxes=(make_box(),) * i) for i in range(3)]
    path, _ = data_sets.write(form, rows, manifest=data.draw(st.booleans()))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen = data.draw(st.sampled_from(files))
    chosen.write_bytes(change(chosen.read_bytes(), data.draw))
    damage, messages = DamageLog(), []
    try:
        open_format(form).recognizes(path)
        for entry in open_format(form).entries(path, damage):
            try:
                labelled = entry.load()
            except FrameError as error:
                messages.append(str(error))
            else:
                labelled.label.encode()
    except FrameError as error:
        messages.append(str(error))
    assert str(path.parent) not in damage.sentence() + "".join(messages)

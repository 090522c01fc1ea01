import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import FrameError
from fleet_model.files import json_stream
from fleet_model.files.json_stream import read_members

pytestmark = pytest.mark.base

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8
)  # fmt: skip
objects = st.dictionaries(st.text(max_size=5), values, max_size=5)


@pytest.fixture(params=[1 << 20, 7])
def chunk(request, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", request.param)


@given(objects, st.sampled_from([None, 1]), st.booleans())
def test_members_come_as_json_has_them(tmp_path_factory, content, indent, ascii_only):
    for size in (1 << 20, 3):
        json_stream._CHUNK = size
        path = tmp_path_factory.mktemp("j") / "a.json"
        path.write_text(
            json.dumps(content, indent=indent, ensure_ascii=ascii_only), "utf-8", "surrogatepass"
        )
        expected = [
            (key, item)
            for key, value in content.items()
            for item in (value if isinstance(value, list) else [value])
        ]
        try:
            assert list(read_members(path)) == expected
        finally:
            json_stream._CHUNK = 1 << 20


def test_numbers_keep_their_digits(tmp_path, chunk):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1.10, 12345678901234567890, 1e-7], "b": ' + "9" * 5000 + "}")
    members = list(read_members(path))
    assert members[0] == ("a", Decimal("1.10"))
    assert str(members[0][1]) == "1.10"
    assert members[1][1] == 12345678901234567890
    assert members[2] == ("a", Decimal("1e-7"))
    assert members[3] == ("b", Decimal("9" * 5000))


@given(st.binary(max_size=80) | st.text('{}[]",:1 \\n-.eE', max_size=40).map(str.encode))
def test_any_bytes_are_members_or_a_frame_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("j") / "a.json"
    path.write_bytes(content)
    reason = "cut file"
    try:
        list(read_members(path))
    except FrameError as error:
        reason = error.reason
    assert reason in ("cut file", "damaged file")


@pytest.mark.parametrize("text", ['{"a": ' + "[" * 200_000, '{"a": [' + '{"a":' * 200_000])
def test_deep_nesting_is_damage(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FrameError):
        list(read_members(tmp_path / "a.json"))


def test_items_before_the_damage_are_read(tmp_path, chunk):
    (tmp_path / "a.json").write_text('{"a": [1, 2, {"b": 3}, {"b": ')
    found = []
    with pytest.raises(FrameError, match=r"^a\.json at character ") as caught:
        found.extend(read_members(tmp_path / "a.json"))
    assert caught.value.reason in ("cut file", "damaged file")

"""Parts in one body."""

import pytest

from fleet_model.protocol.whole import MAX_PARTS, join, split

pytestmark = pytest.mark.base


@pytest.mark.parametrize("parts", [[b"a"], [b""], [b"head", b"", b"x" * 70_000]])
def test_parts_come_back_as_they_were(parts):
    assert list(split(join(parts))) == parts


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\0\0\1", b"\0\0\0\2x", b"\0\0\0\1xy", b"\0\0\0\0" * (MAX_PARTS + 1)]
)
def test_what_is_no_body_is_refused(body):
    with pytest.raises(ValueError, match="whole"):
        split(body)

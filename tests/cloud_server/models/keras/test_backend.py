import numpy as np
import pytest

from cloud_server.models.keras.backend import _distance

ZEROS = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("fp32", "int8", "expected"),
    [(ZEROS, ZEROS, 0.0), (ZEROS + 2, ZEROS + 2.5, 0.25), (ZEROS + 4, ZEROS, 1.0)],
)
def test_int8_is_measured_against_fp32_also_where_that_is_all_zeros(fp32, int8, expected):
    assert _distance(fp32, int8) == expected

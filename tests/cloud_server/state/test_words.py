from pathlib import Path

import pytest

from cloud_server.state.words import with_directory

pytestmark = pytest.mark.base


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("see `cloud-server runs list DIR`", "see `cloud-server runs list my/fleet`"),
        (
            "cloud-server robots add DIR NAME --key x",
            "cloud-server robots add my/fleet NAME --key x",
        ),
        ("cloud-server renew-certificate DIR.", "cloud-server renew-certificate my/fleet."),
        ("DIRECTORY, DIR and cloud-server status", "DIRECTORY, DIR and cloud-server status"),
    ],
)
def test_a_command_in_a_message_names_the_directory(text, filled):
    assert with_directory(text, Path("my/fleet")) == filled


def test_a_directory_with_a_space_can_be_copied_too():
    assert with_directory("cloud-server repair DIR", Path("a b")) == "cloud-server repair 'a b'"

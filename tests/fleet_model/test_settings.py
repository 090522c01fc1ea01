from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from fleet_model.errors import SettingsError
from fleet_model.settings import (
    Expected,
    Former,
    Section,
    explain,
    initial_toml,
    override,
    read_toml,
    settings_of,
    toml_value,
    validate,
)

pytestmark = pytest.mark.base


class Network(Section):
    """Where it listens.

    More about it.
    """

    port: int = Field(default=80, ge=1, le=99, description="Where to listen.")
    old: Annotated[str, Former()] = ""
    names: tuple[Annotated[str, Expected("a host name")], ...] = Field(
        default=("a", "b"), description="In the certificate."
    )
    mode: Literal["one", "two"] = Field(default="one", description="Which way.")


class Log(Section):
    """What it says."""

    folder: Path | None = Field(default=None, description="Where to.", examples=["/logs"])
    loud: bool = Field(default=False, description="Whether to shout.")

    @field_validator("loud")
    @classmethod
    def _never_at_night(cls, value):
        if value:
            raise ValueError("expected false at night")
        return value


class File(Section):
    network: Network = Network()
    state: Path = Field(default=Path("state"), description="Its folder.")
    log: Log = Log()


def loaded(text, tmp_path, **environment):
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    values = read_toml(path)
    override(values, File, environment, "X_")
    return validate(values, File, path, environment, "X_")


FIRST = """\
# Head of the file.
# A second line.

# Its folder.
state = "here"

# Where it listens.
[network]
# Where to listen.
port = 7
# In the certificate.
names = ["a", "b"]
# Which way.
mode = "one"

# What it says.
[log]
# Where to.
# folder = "/logs"
# Whether to shout.
loud = false
"""


def test_the_first_file_is_commented_whole_and_reads_back_as_it_was_written(tmp_path):
    settings = File(network=Network(port=7), state=Path("here"))

    text = initial_toml(settings, "Head of the file.\nA second line.")

    assert text == FIRST
    assert loaded(text, tmp_path) == settings


def test_every_setting_is_listed_once_with_all_that_a_reference_needs():
    listed = {(s.section, s.key): s for s in settings_of(File, "X_")}

    assert list(listed) == [
        ("", "state"), ("network", "port"), ("network", "names"), ("network", "mode"),
        ("log", "folder"), ("log", "loud"),
    ]  # fmt: skip
    port = listed["network", "port"]
    assert (port.expected, port.default) == ("a whole number, at least 1 and at most 99", "80")
    assert (port.description, port.variable) == ("Where to listen.", "X_NETWORK__PORT")
    assert listed["network", "names"].expected == "a list; each: a host name"
    assert listed["network", "mode"].expected == '"one" or "two"'
    assert (listed["log", "folder"].expected, listed["log", "folder"].default) == ("a path", "")
    assert listed["", "state"].variable == "X_STATE"


PORT = "expected a whole number, at least 1 and at most 99"
WRONG = {
    "[network]\nprot = 1": 'network.prot: unknown key "prot"; did you mean "port"?',
    "[network]\nxyz = 1": 'network.xyz: unknown key "xyz"; known are: port, names, mode',
    "[netwrok]\nport = 1": 'netwrok: unknown section "netwrok"; did you mean "network"?',
    "[network]\nport = 0": f"network.port: {PORT} (got 0)",
    "[network]\nnames = [1]": "network.names: expected a list; each: a host name (got 1)",
    "[network]\nmode = 'three'": 'network.mode: expected "one" or "two" (got \'three\')',
    "network = 3": "network: expected a section with keys (got 3)",
    "[log]\nloud = true": "log.loud: expected false at night (got True)",
    "[log]\nloud = 'maybe'": "log.loud: expected true or false (got 'maybe')",
    "state = 3": "state: expected a path (got 3)",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_a_wrong_value_is_answered_with_file_key_and_what_is_expected(tmp_path, text, words):
    with pytest.raises(SettingsError) as error:
        loaded(text, tmp_path)

    assert str(error.value) == f"{tmp_path}/x.toml: {words}"


def test_a_long_wrong_value_is_not_shown_whole(tmp_path):
    with pytest.raises(SettingsError) as error:
        loaded(f"[network]\nport = '{'x' * 5000}'", tmp_path)

    assert len(str(error.value)) < 250 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("X_NETWORK__PORT", "expected a whole number"),
        ("X_NETWORK__PROT", 'unknown key "prot"; did you mean'),
        ("X_NETWROK__PORT", 'unknown section "netwrok"; did you mean'),
        ("X_PORT", "no setting has this name; expected X_SECTION__KEY"),
        ("X_NETWORK", "no setting has this name"),
        ("X_A__B__C", "no setting has this name"),
    ],
)
def test_a_wrong_variable_is_named_and_not_the_file(tmp_path, name, words):
    with pytest.raises(SettingsError) as error:
        loaded("", tmp_path, **{name: "many"})

    assert str(error.value).startswith(f"{name}: {words}")


def test_variables_override_the_file_and_others_are_not_looked_at(tmp_path):
    settings = loaded("[network]\nport = 3", tmp_path, X_NETWORK__PORT="4", X_STATE="s", Y_A="1")

    assert (settings.network.port, settings.state) == (4, Path("s"))


class People(BaseModel):
    people: tuple[Network, ...] = ()


def test_a_wrong_value_in_a_list_is_found_and_may_be_kept_secret():
    with pytest.raises(ValidationError) as error:
        People.model_validate({"people": [{}, {"port": "secret"}]})

    assert explain(error.value, People, show=False) == (["people", "1", "port"], PORT)


@pytest.mark.parametrize(
    ("value", "toml"),
    [
        (True, "true"),
        (1e-12, "1e-12"),
        ((), "[]"),
        ({"a b": ["x"]}, '{"a b" = ["x"]}'),
        ("\x7f\n", '"\\u007f\\n"'),
    ],
)
def test_values_are_written_as_toml(value, toml):
    assert toml_value(value) == toml

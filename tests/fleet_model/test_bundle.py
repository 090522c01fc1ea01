import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model import __version__
from fleet_model.bundle import (
    MANIFEST,
    MAX_JSON_BYTES,
    TRAINER,
    FileEntry,
    entry_of,
    entry_of_file,
    parse_manifest,
    parse_trainer,
    read_bundle,
    read_offer,
    require_file,
    sha256_of,
    to_json,
)
from fleet_model.errors import BundleError
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
PARSERS = {MANIFEST: parse_manifest, TRAINER: parse_trainer}
ENTRY = {"sha256": "0" * 64, "size_bytes": 1}


def changed(file, change):
    """Return the JSON of the tiny bundle's file after a change, and its parser."""
    values = json.loads((TINY / file).read_text())
    change(values)
    return json.dumps(values).encode(), PARSERS[file]


@pytest.mark.parametrize("file", PARSERS)
def test_a_published_file_survives_parsing_and_writing_byte_for_byte(file):
    content = (TINY / file).read_bytes()

    assert to_json(PARSERS[file](content)) == content


@pytest.mark.parametrize("file", PARSERS)
@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "a\0b", "a\n", "x" * 101, "ü"],
)
def test_a_file_name_never_leaves_the_bundle(file, name):
    content, parse = changed(file, lambda values: values["files"].update({name: ENTRY}))

    with pytest.raises(BundleError, match=f"{file}: files"):
        parse(content)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b"])
def test_a_stage_never_leaves_the_bundle(name):
    content, parse = changed(MANIFEST, lambda values: values["engines"].update(fp32=[name]))

    with pytest.raises(BundleError, match="engines"):
        parse(content)


@pytest.mark.parametrize("file", PARSERS)
@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda values: values.pop("workload"), "workload: Field required"),
        (lambda values: values.update(format=0), "format: "),
        (lambda values: values.update(protocol="2x"), "protocol: "),
        (lambda values: values.update(critical="files"), "critical: "),
        (lambda values: values["files"].update(x={"sha256": "0" * 63, "size_bytes": 1}), "sha256"),
        (lambda values: values["files"].update(x={"sha256": "A" * 64, "size_bytes": 1}), "sha256"),
        (lambda values: values["files"].update(x={**ENTRY, "size_bytes": -1}), "size_bytes"),
    ],
)
def test_a_wrong_field_is_named(file, change, where):
    content, parse = changed(file, change)

    with pytest.raises(BundleError, match=f"^{file}: .*{where}"):
        parse(content)


@pytest.mark.parametrize("file", PARSERS)
def test_a_field_of_a_newer_server_is_kept_and_ignored(file):
    def change(values):
        values["surprise"] = {"a": [1]}
        values["files"]["x"] = {**ENTRY, "mode": 1}

    content, parse = changed(file, change)
    known = parse(content)
    assert known.files["x"].size_bytes == 1
    written = json.loads(to_json(known))
    assert written["surprise"] == {"a": [1]}
    assert written["files"]["x"]["mode"] == 1


@pytest.mark.parametrize("file", PARSERS)
def test_a_field_that_is_critical_must_be_known(file):
    content, parse = changed(file, lambda values: values.update(critical=["files", "workload"]))
    assert parse(content).critical == ("files", "workload")

    content, parse = changed(file, lambda values: values.update(critical=["files", "cipher"]))
    with pytest.raises(BundleError) as caught:
        parse(content)
    assert str(caught.value) == (
        f"{file}: its field 'cipher' is critical, and fleetlearn {__version__} does not know it: "
        "update the agent"
    )


@pytest.mark.parametrize("file", PARSERS)
@pytest.mark.parametrize("critical", [[["files"]], [{}], [3], "cipher"])
def test_what_names_no_critical_fields_is_told_as_a_wrong_field(file, critical):
    content, parse = changed(file, lambda values: values.update(critical=critical))
    with pytest.raises(BundleError, match=f"{file}: critical"):
        parse(content)


@pytest.mark.parametrize("file", PARSERS)
def test_a_file_of_a_higher_protocol_is_refused_whatever_else_it_holds(file):
    newer = {"protocol": PROTOCOL + 1, "format": 7, "files": "elsewhere"}
    with pytest.raises(BundleError) as caught:
        PARSERS[file](json.dumps(newer).encode())
    assert str(caught.value) == (
        f"{file} is of protocol {PROTOCOL + 1}, fleetlearn {__version__} knows protocols up to "
        f"{PROTOCOL}: update the agent"
    )


@pytest.mark.parametrize("file", PARSERS)
def test_another_format_says_update_the_agent(file):
    content, parse = changed(file, lambda values: values.update(format=2))
    with pytest.raises(BundleError, match="has format 2, expected 1: update the agent"):
        parse(content)


@pytest.mark.parametrize("file", PARSERS)
def test_a_file_without_a_number_is_of_the_first_protocol(file):
    assert PARSERS[file]((TINY / file).read_bytes()).protocol == FIRST_PROTOCOL


def test_an_offer_keeps_the_bytes_that_came():
    spelled = json.dumps(json.loads((TINY / MANIFEST).read_text()), indent=7).encode()
    assert read_offer(spelled).content == spelled
    assert read_offer(spelled).manifest == read_bundle(TINY)


def test_a_negative_version_is_refused():
    content, parse = changed(MANIFEST, lambda values: values.update(version=-1))

    with pytest.raises(BundleError, match="version"):
        parse(content)


def test_an_engine_names_only_files_that_are_listed():
    content, parse = changed(MANIFEST, lambda values: values["engines"].update(fp32=["other"]))

    with pytest.raises(BundleError, match="engine fp32 names other, not in files"):
        parse(content)


def test_a_part_names_only_files_that_are_listed():
    content, parse = changed(TRAINER, lambda values: values["parts"].update(keras=["other"]))

    with pytest.raises(BundleError, match="part keras names other, which is not in files"):
        parse(content)


@pytest.mark.parametrize("parse", PARSERS.values())
def test_a_file_that_is_too_long_is_refused_before_it_is_parsed(parse):
    with pytest.raises(BundleError, match=f"expected at most {MAX_JSON_BYTES}"):
        parse(b" " * (MAX_JSON_BYTES + 1))


@pytest.mark.parametrize("parse", PARSERS.values())
def test_deep_nesting_is_refused(parse):
    with pytest.raises(BundleError):
        parse(b'{"workload": {"name": "x", "config": {"a": ' + b"[" * 100_000)


@pytest.mark.parametrize("parse", PARSERS.values())
@given(content=st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_garbage_raises_nothing_but_a_bundle_error(parse, content):
    with pytest.raises(BundleError):
        parse(content)


def test_a_precision_that_was_not_published_lists_those_that_were():
    manifest = read_bundle(TINY)

    with pytest.raises(BundleError, match="version 1 has no 'fp16' engine; choose fp32, int8"):
        manifest.needed("fp16")
    assert set(manifest.needed("int8")) == {"trunk_int8.tflite", "head_int8.tflite"}


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(TINY, tmp_path / "bundle")


def test_a_whole_bundle_is_read_and_checked(bundle):
    assert read_bundle(bundle).version == 1


def test_a_truncated_file_is_found(bundle):
    content = (bundle / "head.tflite").read_bytes()
    (bundle / "head.tflite").write_bytes(content[:-1])

    message = rf"head\.tflite: {len(content) - 1} bytes, expected {len(content)}"
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


def test_a_flipped_bit_is_found(bundle):
    content = bytearray((bundle / "head.tflite").read_bytes())
    content[500] ^= 1
    (bundle / "head.tflite").write_bytes(content)

    expected = read_bundle(TINY).files["head.tflite"].sha256[:12]
    with pytest.raises(BundleError, match=rf"head\.tflite: sha256 is .*, expected {expected}"):
        read_bundle(bundle)


def test_a_missing_file_matters_only_if_it_is_needed(bundle):
    (bundle / "head_int8.tflite").unlink()
    manifest = read_bundle(bundle)

    read_bundle(bundle, manifest.needed("fp32"))
    with pytest.raises(BundleError, match=r"head_int8\.tflite: missing"):
        read_bundle(bundle, manifest.needed("int8"))


def test_only_files_of_the_manifest_can_be_asked_for(bundle):
    with pytest.raises(BundleError, match=r"expected\.json is not in the manifest"):
        read_bundle(bundle, ["expected.json"])


@pytest.mark.parametrize("name", ["empty", "file"])
def test_a_place_that_is_no_bundle_is_said_to_be_none(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(BundleError, match=f"{name}: no manifest.json"):
        read_bundle(tmp_path / name)


def test_no_error_shows_where_the_bundle_lies(bundle):
    (bundle / "head.tflite").write_bytes(b"")

    with pytest.raises(BundleError) as error:
        read_bundle(bundle)
    assert str(bundle.parent) not in str(error.value)


@given(content=st.binary(max_size=100))
def test_an_entry_fits_its_content_and_no_other(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("entry") / "file"
    path.write_bytes(content)

    require_file(path, entry_of(content))
    with pytest.raises(BundleError):
        require_file(path, entry_of(content + b"x"))
    wrong = FileEntry(sha256=sha256_of(content + b"x"), size_bytes=len(content))
    with pytest.raises(BundleError):
        require_file(path, wrong)


def test_a_file_is_described_as_its_content_is(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)

    assert entry_of_file(tmp_path / "file") == entry_of(b"x" * 3_000_000)


def test_adapters_that_the_tensors_do_not_have_are_refused():
    def adapt(values):
        values["adapter"] = {"rank": 2, "alpha": 4, "targets": {"head/kernel": [8, 3]}}
        values["tensors"]["head/kernel.lora_a"] = {"shape": [8, 2]}

    content, parse = changed(TRAINER, adapt)
    with pytest.raises(BundleError, match=r"has head/kernel.lora_b of shape \(2, 3\), tensors"):
        parse(content)

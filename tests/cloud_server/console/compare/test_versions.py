"""Published versions of a real server, compared in its console."""

import json
import re

import pytest
from compared_models import picture, publish, visit
from console_client import Browser
from headless_browser import in_browser

from cloud_server.cli.admin_client import AdminClient
from cloud_server.console.compare.uploads import MOST_PICTURE_BYTES
from cloud_server.state.model_store import DirectoryStore
from fleet_model.engine import TFLiteEngine
from fleet_model.pictures.image_file import image_frame

ASKED = {"11 fp32": "on", "12 fp32": "on"}


@pytest.fixture(scope="module")
def sets(shapes):
    """Let the server know a folder of data sets: `running_server` has our environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETLEARN_CONSOLE__DATA_SETS", str(shapes.parent))
        yield shapes


@pytest.fixture(scope="module")
def browser(sets, running_server, bundles, tmp_path_factory):
    for version, bundle in zip((11, 12), bundles, strict=True):
        publish(running_server.server_dir, bundle, version, tmp_path_factory.mktemp("versions"))
    one = Browser(running_server)
    assert one.log_in().status_code == 303
    yield one
    one.client.close()


def opened(browser, **fields):
    return browser.post("/console/compare", {"token": browser.token(), **(fields or ASKED)})


@pytest.fixture(scope="module")
def comparison(browser):
    answer = opened(browser)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def ask(browser, path, content, what="/ask", **headers):
    known = {"origin": browser.base, "x-form-token": browser.token()}
    return browser.client.post(path + what, content=content, headers=known | headers)


def test_versions_are_listed_with_their_engines(browser):
    page = browser.get("/console/compare").text
    names = re.findall(r'type="checkbox" name="([^"]+)"', page)
    assert [name for name in names if name.startswith("1")][:4] == [
        "12 fp32", "12 int8", "11 fp32", "11 int8",
    ]  # fmt: skip
    assert "checked" not in page
    picked = browser.get("/console/compare?version=12").text
    assert re.findall(r'name="([^"]+)"[^>]* checked', picked) == ["12 fp32"]
    assert "/console/compare?version=12&amp;lineage=" in browser.get("/console/models/12").text


def test_two_versions_answer_as_their_engines_do(browser, comparison, bundles):
    content = picture(side=80)
    page = browser.get(comparison).text
    assert "Compare 2 models" in page
    assert "<option>circle</option>" in page
    answer = ask(browser, comparison, content)
    assert answer.status_code == 200
    frame = image_frame(content, "", "", 0, "")
    for bundle in bundles:
        for one in TFLiteEngine(bundle).predict(frame):
            row = rf">{one.label}</span> <span class=\"much\">{100 * one.score:.1f} %<"
            assert re.search(row, answer.text), one
    assert "They differ: 11 fp32: star, 12 fp32: square" in answer.text


def test_a_data_set_of_the_settings_is_asked_about(browser, comparison):
    assert "<option>shapes</option>" in browser.get(comparison).text
    for name in ("", "..", "shapes/star", "/"):
        assert ask(browser, comparison, b"", f"/begin?data={name}").status_code == 404
    text = ask(browser, comparison, b"", "/begin?data=shapes").text
    while 'data-state="running"' in text:
        text = browser.get(f"{comparison}/batch").text
    assert "12 of 12 inputs are answered differently" in text
    picture_of = browser.get(f"{comparison}/input/0")
    assert picture_of.headers["content-type"] == "image/jpeg"
    assert "default-src 'none'" in picture_of.headers["content-security-policy"]
    assert ask(browser, comparison, b"", "/begin?data=shapes", origin="null").status_code == 403


@in_browser
def test_an_operator_compares_two_versions_in_a_browser(browser, tmp_path):
    (tmp_path / "seen.jpg").write_bytes(picture(".jpg", 200))
    link = AdminClient(browser.server_dir).console_link()
    told = visit("console", link, tmp_path, tmp_path / "seen.jpg")
    assert told["title"] == "Compare 2 models"
    assert told["chosen"] == "They differ: 11 fp32: star, 12 fp32: square"
    assert told["complaints"] == []


def test_the_same_choice_goes_on_and_is_listed(browser, comparison):
    ask(browser, comparison, picture())
    again = opened(browser)
    assert again.headers["location"] == comparison
    assert re.search(r'<p class="big">[1-9]', browser.get(comparison).text)
    listed = browser.get("/console/compare").text
    assert f'<a href="{comparison}">11 fp32 and 12 fp32</a>' in listed
    assert ask(browser, comparison, b"", "/clear").text.count('<p class="big">0</p>') == 2


def test_a_picture_of_megabytes_passes_the_guard_and_a_larger_one_does_not(browser, comparison):
    content = picture() + b"\0" * (6 << 20)
    assert ask(browser, comparison, content).status_code == 200
    most = browser.head_alone(f"{comparison}/ask", MOST_PICTURE_BYTES + 1)
    assert b" 413 " in most
    assert b"send at most 20971520 bytes" in most
    assert b"send at most 16384 bytes" in browser.head_alone(f"{comparison}/clear", 17 << 10)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"sec-fetch-site": "cross-site"},
        {"x-form-token": "x"},
    ],
)
def test_another_site_asks_nothing(browser, comparison, headers):
    assert ask(browser, comparison, picture(), **headers).status_code == 403
    assert ask(browser, comparison, b"", "/clear", **headers).status_code == 403


def test_without_a_session_there_is_nothing_and_no_long_body(browser, comparison, running_server):
    stranger = Browser(running_server)
    try:
        for path in (
            "/console/compare",
            comparison,
            f"{comparison}/batch",
            f"{comparison}/input/0",
        ):
            assert stranger.get(path).status_code == 401
        headers = {"origin": browser.base, "x-form-token": browser.token()}
        post = stranger.client.post
        assert post(f"{comparison}/ask", content=picture(), headers=headers).status_code == 401
        assert b"send at most 16384 bytes" in stranger.head_alone(f"{comparison}/ask", 17 << 10)
    finally:
        stranger.client.close()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"11 fp32": "on"}, "1 models are chosen; choose 2 to 6"),
        ({"11 fp32": "on", "99 fp32": "on"}, "1 models are chosen"),
        ({"11 fp64": "on", "": "on"}, "0 models are chosen"),
    ],
)
def test_what_cannot_be_compared_is_said_on_a_page(browser, fields, why):
    answer = opened(browser, **fields)
    assert answer.status_code == 409
    assert why in answer.text


def test_a_version_whose_files_are_damaged_is_named(browser, bundles, running_server, tmp_path):
    publish(running_server.server_dir, bundles[0], 13, tmp_path)
    manifest = json.loads(DirectoryStore(running_server.server_dir.store).require(13))
    trunk = manifest["files"]["trunk.tflite"]["sha256"]
    file = running_server.server_dir.store / "objects" / trunk
    content = file.read_bytes()
    try:
        file.write_bytes(b"x" + content[1:])
        answer = opened(browser, **{"11 int8": "on", "13 fp32": "on"})
        assert answer.status_code == 409
        assert "13 fp32: trunk.tflite: sha256" in answer.text
    finally:
        file.write_bytes(content)


def test_nothing_is_left_in_the_temporary_folder(browser, comparison):
    from pathlib import Path
    from tempfile import gettempdir

    assert not list(Path(gettempdir()).glob("fleetlearn-compare-*"))


def test_an_address_of_no_comparison_is_a_page_that_says_so(browser):
    answer = browser.get("/console/compare/none")
    assert answer.status_code == 404
    assert "choose the models again" in answer.text
    assert ask(browser, "/console/compare/none", picture()).status_code == 404


def test_the_server_ends_with_its_comparisons(browser, comparison):
    """`running_server` ends with code 0 after this file's tests, with a child that computes."""
    assert AdminClient(browser.server_dir).status()

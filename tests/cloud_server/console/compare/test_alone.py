"""`cloud-server compare` as a person starts it: who gets in, what is answered, what is refused."""

import re
import subprocess
import sys
import time

import cv2
import httpx
import numpy as np
import psutil
import pytest
from compared_models import Page, bomb, picture

from cloud_server.console.compare.uploads import MOST_PICTURE_BYTES

MB = 1 << 20


def memory_mb(page):
    one = psutil.Process(page.process.pid)
    return sum(p.memory_info().rss for p in (one, *one.children())) / MB


def test_a_picture_is_answered_side_by_side_and_counted(page):
    page.post("/clear", b"")
    answer = page.post("/ask?truth=star", picture())
    assert answer.status_code == 200
    assert re.findall(r"<article.*?<h3>(\w+)", answer.text, re.DOTALL) == ["teacher", "student"]
    assert "They differ: teacher: star, student: square" in answer.text
    assert "differs" in answer.text
    assert answer.text.count('<li class="best">') == 2
    cards = re.findall(r'<p class="big">([^<]+)</p>', answer.text)
    assert cards == ["1", "0.0 %", "1"]
    assert re.findall(r'data-label="Accuracy">([^<]+)<', answer.text) == ["100.0 %", "0.0 %"]
    assert page.post("/clear", b"").text.count('<p class="big">0</p>') == 2


def test_nothing_is_answered_without_the_token(page):
    with httpx.Client(base_url=page.origin) as stranger:
        for path in (page.path, "/", "/static/console.css", f"{page.path}?token=x"):
            answer = stranger.get(path)
            assert answer.status_code == 403
            assert "cloud-server compare" in answer.json()["detail"]
    for headers in ({"host": "elsewhere.example"}, {"host": ""}):
        assert page.client.get(page.path, headers=headers).status_code in (400, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"x-form-token": ""},
        {"x-form-token": "x"},
    ],
)
def test_a_page_of_another_site_asks_nothing(page, headers):
    for what in ("/ask", "/clear"):
        answer = page.post(what, picture(), **headers)
        assert answer.status_code == 403
        assert "detail" in answer.json()


def test_every_answer_forbids_scripts_in_markup(page):
    answers = [page.client.get(path) for path in (page.path, "/static/compare.js", "/nothing")]
    answers += [page.post("/ask", picture()), page.post("/ask", b"x"), httpx.get(page.origin)]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "blob:" not in policy
        if answer.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?! defer src=)|<style|\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no data"),
        (b"%PDF-1.7 and so on", "none of jpeg, png, webp, bmp, tiff"),
        (b"GIF89a" + b"\0" * 50, "gif is not read; convert it"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of jpeg"),
        (b"PK\x03\x04" + b"\0" * 50, "none of jpeg"),
        (picture(".jpg")[:-40], "a jpeg that was cut short"),
        (bomb(20_000), "a png of 20000 x 20000 pixels"),
        (bomb(8_000), "8000 x 8000 pixels, at most 34 million are decoded here"),
    ],
)
def test_hostile_files_are_refused_before_they_are_decoded(page, content, why):
    before = memory_mb(page)
    answer = page.post("/ask", content)
    assert answer.status_code == 422
    assert why in answer.json()["detail"]
    assert memory_mb(page) - before < 15
    assert page.post("/ask", picture()).status_code == 200


def test_a_bomb_is_small():
    assert len(bomb(8_000)) < 20_000


def test_a_hundred_megabytes_are_refused_before_they_are_read(page):
    before = memory_mb(page)
    answer = page.head_alone("/ask", 100 * MB)
    assert b" 413 " in answer.partition(b"\r\n")[0]
    assert b"this has 100 MB, at most 20 MB are taken" in answer
    assert memory_mb(page) - before < 10


def test_a_file_without_a_length_is_refused(page):
    answer = page.post("/ask", iter([picture()]))
    assert answer.status_code == 411


def test_as_many_bytes_as_allowed_are_taken(page):
    content = picture() + b"\0" * (MOST_PICTURE_BYTES - len(picture()))
    assert page.post("/ask", content).status_code == 200
    assert b" 413 " in page.head_alone("/ask", len(content) + 1)


def test_what_is_no_label_counts_as_not_known(page):
    page.post("/clear", b"")
    answer = page.post("/ask?truth=%3Cb%3Ehorse", picture())
    assert re.findall(r'<p class="big">([^<]+)</p>', answer.text)[2] == "0"
    assert "<b>horse" not in answer.text


def test_texts_are_compared_as_well(tmp_path):
    from text_bundles import write_text_bundle

    for name, turned in (("one", False), ("other", True)):
        (tmp_path / name).mkdir()
        write_text_bundle(tmp_path / name, turned=turned)
    rows = "a great day,good\npoor <img src=x onerror=alert(1)>,bad\n"
    (tmp_path / "texts.csv").write_text("text,label\n" + rows)
    page = Page(tmp_path / "one", tmp_path / "other", "--data", tmp_path / "texts.csv")
    try:
        assert '<textarea id="text"' in page.client.get(page.path).text
        answer = page.post("/ask?truth=good", b"a great day")
        assert "They differ: one: good, other: bad" in answer.text
        text = page.post("/begin?data=texts.csv", b"").text
        while 'data-state="running"' in text:
            text = page.client.get(f"{page.path}/batch").text
        assert "2 of 2 inputs are answered differently" in text
        assert "poor &lt;img src=x onerror=alert(1)&gt;" in text
        assert "<img" not in text
        assert "one: true class and answer" in text
        assert "They differ: one: bad, other: good" in page.post("/again/1", b"").text
        assert page.client.get(f"{page.path}/input/0").status_code == 422
        assert page.post("/ask", b"\xff\xfe").json()["detail"] == "a text that is not UTF-8"
        assert b"has 65 kB, at most 64 kB are taken" in page.head_alone("/ask", 65 << 10)
    finally:
        assert page.end() == 0


def test_a_data_set_is_asked_about_and_its_pictures_are_shown(bundles, tmp_path):
    (tmp_path / "set" / "star").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "set" / "star" / f"{number}.png").write_bytes(picture(side=900, seed=number))
    page = Page(*bundles, "--data", tmp_path / "set")
    try:
        assert "<option>set</option>" in page.client.get(page.path).text
        assert page.post("/begin?data=other", b"").status_code == 404
        assert page.post("/begin?data=set", b"", origin="null").status_code == 403
        text = page.post("/begin?data=set", b"").text
        while 'data-state="running"' in text:
            text = page.client.get(f"{page.path}/batch").text
        assert "3 of 3 inputs" in text
        assert "3 of 3 inputs are answered differently" in text
        shown = re.findall(r'<img loading="lazy" src="([^"]+)"', text)
        assert sorted(shown) == [f"{page.path}/input/{number}" for number in range(3)]
        for query, side in (("", 320), ("?large=true", 640)):
            one = page.client.get(shown[0] + query)
            assert one.headers["content-type"] == "image/jpeg"
            pixels = cv2.imdecode(np.frombuffer(one.content, np.uint8), cv2.IMREAD_COLOR)
            assert pixels.shape == (side, side, 3)
        assert page.client.get(f"{page.path}/input/3").status_code == 422
        assert "They differ" in page.post("/again/0", b"").text
    finally:
        assert page.end() == 0


def test_the_process_that_computes_ends_with_a_killed_page(bundles):
    page = Page(*bundles)
    (child,) = psutil.Process(page.process.pid).children()
    page.process.kill()
    page.client.close()
    child.wait(20)


@pytest.mark.parametrize("words", [["nothing"], ["."], []])
def test_what_cannot_be_compared_is_said_in_a_sentence(bundles, words):
    command = [sys.executable, "-m", "cloud_server", "compare", bundles[0], *words]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert time.monotonic() - began < 30

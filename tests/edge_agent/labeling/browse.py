"""Label as a person does, in headless Chromium: .venv-browser/bin/python browse.py KIND URL FOLDER.

Writes one JSON object to stdout: what the page showed, and what axe-core found.
"""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = Path(sys.prefix) / "chromium"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PATIENCE_MS = 60_000
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts/truetype</dir><cachedir>{root}/fonts-cache</cachedir>
<match><edit name="family" mode="assign"><string>DejaVu Sans</string></edit></match>
</fontconfig>"""


@contextmanager
def browser():
    """Start the browser that was unpacked beside this environment, with its own libraries."""
    (program,) = CHROMIUM.glob("usr/lib/chromium*/chromium-headless-shell")
    libraries = {str(file.parent) for file in CHROMIUM.rglob("*.so*")}
    fonts = CHROMIUM / "fonts.conf"
    fonts.write_text(FONTS.format(root=CHROMIUM))
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        "FONTCONFIG_FILE": str(fonts),
    }
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, env=environment, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


class Person:
    """One page, what it complains about, and what it asks for."""

    def __init__(self, browser, url, folder, **how):
        self.folder, self.told = folder, {"complaints": [], "asked": [], "axe": {}}
        self.page = browser.new_context(**how).new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.told["complaints"].append(str(error)))
        self.page.on("request", lambda request: self.told["asked"].append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("#canvas img")

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.told["complaints"].append(message.text)

    def press(self, *keys):
        for key in keys:
            self.page.wait_for_selector("#canvas img")
            self.page.keyboard.press(key)

    def until(self, words):
        self.page.locator(f"#counts:text-is('{words}')").wait_for()

    def look(self, name):
        """Keep a picture of the page, and what axe-core says of it."""
        self.page.evaluate("Promise.all([...document.images].map(one => one.decode()))")
        self.page.screenshot(path=self.folder / f"{name}.png")
        found = Axe().run(self.page).response["violations"]
        self.told["axe"][name] = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        self.told[f"too wide, {name}"] = self.page.evaluate(wide)

    def text(self, selector):
        return self.page.inner_text(selector)


def classes(browser, url, folder):
    """Label twenty frames by keyboard, two of them otherwise, and look on a phone."""
    one = Person(browser, url, folder, viewport=DESKTOP)
    one.told["address"] = one.page.url
    one.told["first"] = one.text("#about")
    one.press(*"123" * 6)
    one.until("18 labelled")
    one.press("n", "s")
    one.until("18 labelled, 1 not sure, 1 skipped")
    one.press("u")
    one.until("18 labelled, 1 not sure")
    one.press("Enter")  # what the model says
    one.until("19 labelled, 1 not sure")
    one.press("ArrowRight", "ArrowLeft")
    one.page.click("#classes button >> nth=1")
    one.until("20 labelled, 1 not sure")
    one.told["words"] = one.text("#words")
    one.told["curve"] = one.page.locator("#plot svg").get_attribute("aria-label")
    one.look("classes")
    phone = on_phone(browser, url, folder, color_scheme="dark")
    phone.page.tap("#classes button >> nth=0")
    phone.until("21 labelled, 1 not sure")
    phone.look("classes-phone")
    return both_told(one, phone, "classes-phone")


def on_phone(browser, url, folder, **more):
    """Return a person with a phone."""
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    return Person(browser, url, folder, **phone, **more)


def both_told(one, phone, look):
    """Return what was found on the desktop and on the phone."""
    one.told["axe"] |= phone.told["axe"]
    one.told["complaints"] += phone.told["complaints"]
    one.told["too wide"] = phone.told[f"too wide, {look}"]
    return one.told


def boxes(browser, url, folder):
    """Draw boxes by mouse, keyboard and touch; correct one that was there."""
    one = Person(browser, url, folder, viewport=DESKTOP)
    page = one.page
    one.told["there"] = page.locator(".box").count()
    drag(page, (0.1, 0.1), (0.4, 0.5))
    page.keyboard.press("2")  # its class
    drag(page, (0.9, 0.9), (0.7, 0.6))
    one.told["drawn"] = page.locator(".box").all_inner_texts()
    one.look("boxes")
    page.keyboard.press("Escape")
    one.press("Enter")
    one.until("1 labelled (2 boxes)")
    one.press("a", "ArrowRight", "ArrowRight", "Shift+ArrowDown", "Alt+ArrowUp")
    one.told["by keyboard"] = page.locator(".box").get_attribute("aria-label")
    one.press("a", "x", "1")  # the second one goes; the first is selected again
    page.keyboard.press("Escape")
    one.press("Enter")
    one.until("2 labelled (3 boxes)")
    phone = on_phone(browser, url, folder)
    touch(phone.page, (0.2, 0.2), (0.6, 0.7))
    phone.look("boxes-phone")
    phone.page.tap("#accept")
    phone.until("3 labelled (4 boxes)")
    return both_told(one, phone, "boxes-phone")


def corrections(browser, url, folder):
    """Move and resize a box that is there by mouse, and go through all of them by Tab."""
    one = Person(browser, url, folder, viewport=DESKTOP)
    page = one.page
    one.told["there"] = page.locator(".box").all_inner_texts()
    page.locator(".box").first.focus()
    one.told["before"] = page.locator(".box").first.get_attribute("aria-label")
    area = page.locator(".box").first.bounding_box()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2 + 40, area["y"] + area["height"] / 2 + 20)
    page.mouse.up()
    one.told["moved"] = page.locator(".box").first.get_attribute("aria-label")
    handle = page.locator(".box").first.locator(".se").bounding_box()
    page.mouse.move(handle["x"] + 12, handle["y"] + 12)
    page.mouse.down()
    page.mouse.move(handle["x"] + 42, handle["y"] + 32)
    page.mouse.up()
    one.told["resized"] = page.locator(".box").first.get_attribute("aria-label")
    page.keyboard.press("Tab")
    one.told["second"] = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Delete")
    one.told["left"] = page.locator(".box").count()
    one.look("corrections")
    page.keyboard.press("Escape")
    one.press("Enter")
    one.until("1 labelled (1 boxes)")
    return one.told


def proposals(browser, url, folder):
    """Reject one of the model's boxes, correct one, accept one. The answer of a model is put in."""
    one = Person(browser, url, folder, viewport=DESKTOP)
    found = [
        {"label": label, "score": score, "x0": x, "y0": 40, "x1": x + 60, "y1": 90}
        for label, score, x in (("cup", 0.91, 20), ("cup", 0.4, 120), ("pen", 0.62, 220))
    ]

    def answered(route):
        frames = route.fetch().json()["frames"]
        route.fulfill(json={"frames": [{**f, "version": 9, "proposed": found} for f in frames]})

    one.page.route("**/next*", answered)
    one.page.reload()
    one.page.locator(".box").nth(2).wait_for()
    one.told["about"] = one.text("#about")
    one.told["proposed"] = one.page.locator(".box.proposed").all_inner_texts()
    one.told["accept"] = one.text("#accept span")
    one.look("proposals")
    one.page.locator(".box").nth(1).focus()
    one.press("x", "ArrowDown")  # rejects it; the next one is selected, and moved
    one.told["left"] = one.page.locator(".box").all_inner_texts()
    one.told["still proposed"] = one.page.locator(".box.proposed").all_inner_texts()
    one.press("Escape", "Enter")
    one.until("1 labelled (2 boxes)")
    return one.told


def at(page, share):
    area = page.locator("#boxes").bounding_box()
    return area["x"] + share[0] * area["width"], area["y"] + share[1] * area["height"]


def drag(page, begin, end):
    page.mouse.move(*at(page, begin))
    page.mouse.down()
    page.mouse.move(*at(page, ((begin[0] + end[0]) / 2, end[1])))
    page.mouse.move(*at(page, end))
    page.mouse.up()


def touch(page, begin, end):
    finger = page.context.new_cdp_session(page)
    for kind, share in (("Start", begin), ("Move", end), ("End", None)):
        x, y = at(page, share or end)
        points = [{"x": x, "y": y}] if share else []
        finger.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})


if __name__ == "__main__":
    kind, url, folder = sys.argv[1:]
    with browser() as started:
        play = {
            "classes": classes,
            "boxes": boxes,
            "corrections": corrections,
            "proposals": proposals,
        }
        told = play[kind](started, url, Path(folder))
    json.dump(told, sys.stdout)

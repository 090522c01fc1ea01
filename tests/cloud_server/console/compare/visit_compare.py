"""Compare models in headless Chromium: visit_compare.py WHAT URL FOLDER PICTURE... tells.

Drops, chooses and asks by keyboard; sends a bomb and a hundred megabytes; looks at the page on a
desktop and a phone, by day and by night. WHAT is `pictures` (of which the last is refused),
`boxes`, `texts`, or `console`, where the URL is a link that logs in.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "edge_agent" / "labeling"))
from axe_playwright_python.sync_playwright import Axe
from browse import DESKTOP, PATIENCE_MS, PHONE, browser

WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
DROP = """([name, kind, bytes]) => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(bytes)], name, { type: kind }));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
}"""
HUGE = """() => {
  const given = new DataTransfer();
  given.items.add(new File([new Uint8Array(100 << 20)], "huge.jpg", { type: "image/jpeg" }));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
}"""
SEEN = "document.querySelector('.gallery img').naturalWidth > 0"
# Whether something is on the canvas: not all of its bytes are zero.
DRAWN = """(canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  .data.some((byte) => byte)"""


class Person:
    """One page of a browser, and what it complains about."""

    def __init__(self, started, url, folder):
        self.folder = folder
        self.told = {"complaints": [], "asked": [], "axe": {}, "too wide": {}}
        context = started.new_context(ignore_https_errors=True, viewport=DESKTOP)
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.told["complaints"].append(str(error)))
        self.page.on("request", lambda request: self.told["asked"].append(request.url))
        self.page.goto(url)

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.told["complaints"].append(message.text)

    def until(self, words):
        self.page.locator(f"#said:has-text('{words}')").wait_for()
        return self.page.inner_text("#said")

    def look(self, name):
        """Keep pictures of the page as it stands, and what axe-core says of it."""
        for kind, size, scheme in (("desktop", DESKTOP, "light"), ("phone", PHONE, "dark")):
            self.page.set_viewport_size(size)
            self.page.emulate_media(color_scheme=scheme)
            self.page.screenshot(path=self.folder / f"{name}-{kind}.png", full_page=True)
            found = Axe().run(self.page).response["violations"]
            nodes = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]
            self.told["axe"][f"{name}-{kind}"] = nodes
            self.told["too wide"][f"{name}-{kind}"] = self.page.evaluate(WIDE)
        self.page.set_viewport_size(DESKTOP)

    def numbers(self):
        return self.page.locator("#board .big").all_inner_texts()


def pictures(one, files, refused):
    """Ask about pictures by choosing, by dropping, and with one that is refused."""
    page, told = one.page, one.told
    told["address"] = page.url
    one.look("empty")
    page.get_by_label("True class").select_option("star")
    page.get_by_label("Drop a picture here").set_input_files(files[0])
    told["chosen"] = one.until("They differ")
    told["names"] = page.locator("article h3").all_inner_texts()
    told["bars"] = page.locator("article .much").all_inner_texts()
    page.locator("#answer canvas").wait_for()
    told["drawn"] = page.locator("#answer canvas").evaluate(DRAWN)
    told["numbers"] = one.numbers()
    one.look("answered")
    page.get_by_label("True class").select_option("")
    page.evaluate(DROP, ["dropped.jpg", "image/jpeg", list(files[1].read_bytes())])
    page.locator("#board .big >> text=/^2$/").wait_for()
    told["dropped"] = one.numbers()
    page.evaluate(DROP, ["bomb.png", "image/png", list(refused.read_bytes())])
    told["bomb"] = one.until("pixels")
    page.evaluate(HUGE)
    told["huge"] = one.until("100 MB")
    page.get_by_role("button", name="Ask about all").click()
    told["batch"] = one.until("are answered differently")
    told["gallery"] = page.locator("#batch .says").all_inner_texts()
    page.locator(".gallery img").first.scroll_into_view_if_needed()
    page.wait_for_function(SEEN)
    told["matrices"] = page.get_by_role("region", name="true class and answer").count()
    told["is stoppable"] = page.get_by_role("button", name="Stop").is_visible()
    one.look("batch")
    page.locator(".gallery button").first.focus()
    page.keyboard.press("Enter")
    one.until("They differ")
    page.locator("#answer canvas").wait_for()
    told["again"] = page.locator("#answer canvas").evaluate(DRAWN)
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    one.until("begins anew")
    told["cleared"] = one.numbers()


def console(one, file):
    """Log in by a link, choose two versions, show them a picture; by day and night."""
    page, told = one.page, one.told
    page.wait_for_url("**/console")
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Compare").click()
    for name in ("Version 12 fp32", "Version 11 fp32"):
        page.get_by_label(name).focus()
        page.keyboard.press("Space")
    one.look("versions")
    page.get_by_role("button", name="Compare").click()
    told["title"] = page.inner_text("h1")
    page.get_by_label("Drop a picture here").set_input_files(file)
    told["chosen"] = one.until("They differ")
    one.look("console")


def texts(one):
    """Ask by keyboard alone."""
    page, told = one.page, one.told
    page.get_by_label("A text").focus()
    page.keyboard.type("a great day")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    told["text"] = one.until("They differ")
    one.look("text")


def boxes(one, file):
    """Ask two detectors about a picture."""
    page, told = one.page, one.told
    page.get_by_label("Drop a picture here").set_input_files(file)
    told["chosen"] = one.until("of the boxes agree")
    page.locator("#answer canvas").last.wait_for()
    told["drawn"] = [canvas.evaluate(DRAWN) for canvas in page.locator("#answer canvas").all()]
    one.look("boxes")


def main():
    """Visit, and tell."""
    what, url, folder, *files = sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:])
    with browser() as started:
        one = Person(started, url, folder)
        if what == "pictures":
            pictures(one, files[:-1], files[-1])
        else:
            {"boxes": boxes, "console": console, "texts": texts}[what](one, *files)
        sys.stdout.write(json.dumps(one.told))


if __name__ == "__main__":
    main()

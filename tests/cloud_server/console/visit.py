"""Visit the console in headless Chromium: .venv-browser/bin/python visit.py LINK FOLDER WHAT...

Follows the link. With paths it looks at each, on a desktop and a phone, by day and by night: to see
a fleet of one's own. With `failed` or `finished` it approves a robot and starts a run by clicking,
and waits until the run's page says so. Writes one JSON object: what was seen, what axe-core found.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).parents[2] / "edge_agent" / "labeling"))
from axe_playwright_python.sync_playwright import Axe
from browse import DESKTOP, PATIENCE_MS, PHONE, browser

LEARNING_MS = 900_000
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Operator:
    """One page of a browser that has followed the link, and what it complains about."""

    def __init__(self, started, link, folder):
        self.folder, self.origin = folder, "https://" + urlsplit(link).netloc
        self.told = {"complaints": [], "asked": [], "axe": {}, "too wide": {}}
        context = started.new_context(ignore_https_errors=True, viewport=DESKTOP)
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.told["complaints"].append(str(error)))
        self.page.on("request", lambda request: self.told["asked"].append(request.url))
        self.page.goto(link)
        self.page.wait_for_url(f"{self.origin}/console")

    def _note(self, message):
        if message.type in ("error", "warning"):
            self.told["complaints"].append(message.text)

    def look(self, name, path):
        """Keep pictures of a page, and what axe-core says of it."""
        self.page.goto(self.origin + path)
        looks = (("desktop", DESKTOP, "light"), ("phone", PHONE, "dark"))
        for kind, size, scheme in looks:
            self.page.set_viewport_size(size)
            self.page.emulate_media(color_scheme=scheme)
            self.page.screenshot(path=self.folder / f"{name}-{kind}.png", full_page=kind == "phone")
            found = Axe().run(self.page).response["violations"]
            nodes = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]
            self.told["axe"][f"{name}-{kind}"] = nodes
            self.told["too wide"][f"{name}-{kind}"] = self.page.evaluate(WIDE)
        self.page.set_viewport_size(DESKTOP)


def click(one, ending):
    """Approve a robot and start a run, as a person does; wait for how it ends."""
    page, told = one.page, one.told
    page.goto(one.origin + "/console")
    told["robots"] = page.locator("#robots tbody th").all_inner_texts()
    page.get_by_label("State").select_option(label="wait for approval")
    page.get_by_role("button", name="Show").click()
    told["pending"] = page.locator("#robots tbody th").all_inner_texts()
    beside = page.context.new_page()
    beside.goto(one.origin + "/console")
    beside.locator("details summary").click()
    told["before"] = beside.locator("#all-words li").all_inner_texts()
    page.get_by_role("link", name=told["pending"][0]).click()
    page.get_by_role("link", name="Approve").click()
    told["will"] = page.inner_text("ul.will")
    page.get_by_role("button", name="Approve").click()
    told["done"] = page.inner_text("[role=status]")
    # The other page looks again by itself, and what was opened there stays open.
    beside.locator("#all-words:visible >> text=r3 waits").wait_for(state="detached")
    told["after approval"] = beside.locator("#all-words:visible li").all_inner_texts()
    beside.close()
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Runs").click()
    page.get_by_role("link", name="Start a run").click()
    page.get_by_label("Rounds").fill("2")
    page.keyboard.press("Enter")
    told["begun"] = page.inner_text("[role=status]")
    page.locator("#runs tbody th a").first.click()
    # The page looks again by itself.
    page.locator(f"#state >> text={ending}").wait_for(timeout=LEARNING_MS)
    told["why"] = page.inner_text("#open")
    page.reload()
    told["outcomes"] = page.locator("#told tbody .tag").all_inner_texts()
    told["rounds"] = page.locator("#rounds tbody th").all_inner_texts()
    told["charts"] = page.locator("#curves svg.chart").count()
    run = urlsplit(page.url).path
    for name, path in (("run", run), ("fleet", "/console"), ("start", "/console/do/run")):
        one.look(name, path)
    page.get_by_role("button", name="Log out").click()
    told["after"] = page.inner_text("main")


def main():
    """Visit, and tell."""
    link, folder, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    with browser() as started:
        one = Operator(started, link, folder)
        for path in what:
            if path.startswith("/"):
                one.look(path.partition("?")[0].strip("/").replace("/", "-"), path)
            else:
                click(one, path)
        sys.stdout.write(json.dumps(one.told))


if __name__ == "__main__":
    main()

"""Power cuts on a machine of records: exports become a table, and profiles are told."""

import json
from hashlib import sha256
from pathlib import Path

from power_cuts import Scenario
from recorder import mark

from edge_agent.data.collecting.collect import Export, collect
from edge_agent.training.profiles.told import Told


def _export(root: Path) -> None:
    """Make two exports; the second one has a picture of the first."""
    import cv2
    import numpy as np

    for number, shades in ((1, (20, 90)), (2, (90, 200))):
        folder = root / "exports" / str(number)
        folder.mkdir(parents=True)
        posts = [{"text": f"a post {number} without a picture", "author": "ada"}]
        for shade in shades:
            cv2.imwrite(str(folder / f"{shade}.png"), np.full((8, 8, 3), shade, np.uint8))
            posts.append({"text": f"post {number}", "photo": f"{shade}.png", "author": "ada"})
        (folder / "posts.json").write_text(json.dumps(posts))


def _collect(root: Path) -> None:
    for number in (1, 2):
        collect([Export(root / "exports" / str(number), "board")], root / "records")
        mark()


def _collected(root: Path) -> list[tuple[str, str]]:
    """Return the records; every picture that they name is whole."""
    table = root / "records" / "records.jsonl"
    if not table.exists():
        return []
    found = [json.loads(line) for line in table.read_bytes().splitlines()]
    for record in found:
        if record["image"]:
            picture = root / "records" / record["image"]
            assert sha256(picture.read_bytes()).hexdigest().startswith(picture.stem)
    return [(record["text"], record["image"]) for record in found]


def _tidy(root: Path) -> tuple[list[tuple[str, str]], list[str]]:
    files = (file.name for file in (root / "records").rglob("*") if file.is_file())
    return _collected(root), sorted(files)


COLLECT = Scenario(
    prepare=_export, act=_collect, observe=_collected, resume=_collect, settled=_tidy
)


def _tell(root: Path) -> None:
    """Tell three groups, each larger; what was told before a cut is not told again."""
    for last in (3, 6, 9):
        told = Told.read(root / "told")
        told.add({("board", ""): frozenset(f"record{number}" for number in range(last))})
        told.save(root / "told")
        mark()


def _told(root: Path) -> list[int]:
    return sorted(len(names) for names in Told.read(root / "told").ever)


TOLD = Scenario(
    prepare=lambda root: None,
    act=_tell,
    observe=_told,
    resume=_tell,
    settled=lambda root: len(Told.read(root / "told").last["board", ""]),
)

"""COCO boxes to YOLO, in a process of its own with one tree's modules on PYTHONPATH.

coco_to_yolo.py make SET BOXES    write a COCO data set of small pictures with 40 boxes each
coco_to_yolo.py convert SET OUT   convert it; print the seconds and what the label files say
"""

import hashlib
import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXTRACTS = ("edge_agent.data.extraction.extract", "edge_agent.extraction.extract")  # ours, older
BOXES_PER_PICTURE, CLASSES = 100, 80
WIDTH, HEIGHT = 641, 480  # one share of a width that is short, and one that is not


def main() -> None:
    """Run one of the two; print one line of JSON."""
    arm, *rest = sys.argv[1:]
    print(json.dumps({"make": make, "convert": convert}[arm](*rest)), flush=True)


def make(folder: str, count: str) -> dict[str, int]:
    """Write pictures of one color and boxes with an outline, in two decimals, as COCO has them."""
    import cv2
    import numpy as np

    root, random = Path(folder), np.random.default_rng(11)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    picture = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()
    images, annotations = [], []
    for number in range(int(count) // BOXES_PER_PICTURE):
        name = f"{number:06d}.jpg"
        (root / "images" / name).write_bytes(picture)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        corners = random.uniform(0, (400, 300, 240, 180), (BOXES_PER_PICTURE, 4)).round(2) + 0.01
        for (x, y, w, h), kind in zip(
            corners.round(2).tolist(), random.integers(CLASSES, size=BOXES_PER_PICTURE), strict=True
        ):
            annotation = {"id": len(annotations), "image_id": number, "category_id": int(kind)}
            outline = [x, y, round(x + w, 2), y, round(x + w, 2), round(y + h, 2)]
            annotation |= {"bbox": [x, y, w, h], "area": round(w * h / 2, 2), "iscrowd": 0}
            annotations.append(annotation | {"segmentation": [outline]})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": kind, "name": f"class {kind:02d}"} for kind in range(CLASSES)],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return {"boxes": len(annotations)}


def convert(source: str, out: str) -> dict[str, Any]:
    """Return seconds, frames, lines and a digest of the label files; imports are not timed."""
    name = next(name for name in EXTRACTS if _is_there(name))
    module = import_module(name)
    for needed in ("numpy.ma", "yaml"):
        import_module(needed)
    begin = time.perf_counter()
    module.extract(module.ExtractOptions(paths=(Path(source),), out=Path(out), format="yolo"))
    seconds = time.perf_counter() - begin
    digest, boxes = hashlib.sha256(), 0
    files = [Path(out) / "data.yaml", *sorted(Path(out).glob("labels/*.txt"))]
    for file in files:
        text = file.read_text()
        digest.update(f"{file.name}\n{text}".encode())
        boxes += text.count("\n") if file.suffix == ".txt" else 0
    return {"seconds": seconds, "boxes": boxes, "digest": digest.hexdigest()}


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()

"""COCO files and exports of labelling tools, beside the labels that must come out of them.

As in corpus_layouts: each from the same scenes, by its tool's own definition. Masks are packed from
pixels, episodes are TensorFlow records that are put together byte by byte.
"""

import json
import struct

import numpy as np
from corpus_layouts import CLASSES, HEIGHT, WIDTH, Layout, Scene, picture

PLACE = "images/{}.png"


def _truth(scenes, place=PLACE):
    return {place.format(s.name): (s.label, s.boxes) for s in scenes}


def _coco(scenes, name="{}.png", first_id=0, **annotation):
    """Return COCO's object; further fields go into every annotation."""
    boxes = [(number, box) for number, s in enumerate(scenes) for box in s.boxes]
    return {
        "images": [
            {"id": number, "file_name": name.format(s.name), "width": WIDTH, "height": HEIGHT}
            for number, s in enumerate(scenes)
        ],
        "annotations": [
            {
                "id": first_id + number,
                "image_id": image,
                "category_id": CLASSES.index(label) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            | annotation
            for number, (image, (label, x0, y0, x1, y1)) in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": each} for i, each in enumerate(CLASSES, start=1)],
    }


def coco_of_fiftyone(scenes):
    content = _coco(scenes, iscrowd=0)
    return Layout({"labels.json": json.dumps(content)}, _truth(scenes, "data/{}.png"))


def coco_of_label_studio_on_windows(scenes):
    content = _coco(scenes, "..\\..\\label-studio\\media\\upload\\4\\{}.png", segmentation=[])
    return Layout({"result.json": json.dumps(content)}, _truth(scenes))


def coco_with_addresses(scenes):
    content = _coco(scenes, "https://host/data/upload/1/{}.png?token=x")
    return Layout({"result.json": json.dumps(content)}, _truth(scenes))


def coco_of_cvat(scenes):
    content = _coco(scenes, iscrowd=0, attributes={"occluded": False})
    files = {"annotations/instances_default.json": json.dumps(content)}
    return Layout(files, _truth(scenes, "images/default/{}.png"))


def coco_in_the_order_of_lvis(scenes):
    content = _coco(scenes)
    content["categories"] += [{"id": 9 + i, "name": f"x{i}", "def": "y" * 400} for i in range(400)]
    order = {key: content[key] for key in ("annotations", "images", "categories")}
    text = json.dumps(order | {"licenses": [{"name": "z" * 70_000}]})
    return Layout({"annotations/lvis_v1_val.json": text}, _truth(scenes, "val/{}.png"))


def coco_in_each_folder(scenes):
    """Bare names that are in both folders stand for different pictures."""
    other = [Scene(s.name, scenes[at - 1].boxes) for at, s in enumerate(scenes)]
    files = {
        "train/annotations/a.json": json.dumps(_coco(scenes)),
        "val/annotations/a.json": json.dumps(_coco(other)),
    }
    truth = _truth(scenes, "train/images/{}.png") | _truth(other, "val/images/{}.png")
    return Layout(files, truth)


def coco_that_powershell_wrote(scenes):
    text = json.dumps(_coco(scenes)).encode("utf-16")
    return Layout({"annotations.json": text}, _truth(scenes))


def coco_of_whole_pictures(scenes):
    content = _coco(scenes)
    content["annotations"] = [
        {"id": f"a{number}", "image_id": number, "category_id": number % 3 + 1, "sequence": False}
        for number in range(len(scenes))
    ]
    truth = {PLACE.format(s.name): (CLASSES[n % 3], ()) for n, s in enumerate(scenes)}
    return Layout({"camera_traps.json": json.dumps(content)}, truth)


def _with_outlines(scenes, outline_of, **more):
    content = _coco(scenes, **more)
    for each in content["annotations"]:
        x, y, width, height = each.pop("bbox")
        each["segmentation"] = outline_of(x, y, x + width, y + height)
    return {"annotations/instances.json": json.dumps(content)}


def coco_of_polygons(scenes):
    def diamond(x0, y0, x1, y1):
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        return [[x0, y, x, y0, x1, y, x, y1]]

    return Layout(_with_outlines(scenes, diamond), _truth(scenes))


def _runs(x0, y0, x1, y1):
    """Return the runs of a mask, column by column, pixel by pixel."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    runs, last = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != last:
            runs.append(0)
            last = pixel
        runs[-1] += 1
    return runs


def coco_of_masks(scenes):
    def mask(*corners):
        return {"size": [HEIGHT, WIDTH], "counts": _runs(*corners)}

    return Layout(_with_outlines(scenes, mask, iscrowd=0), _truth(scenes))


def coco_of_packed_masks(scenes):
    """Runs in characters of five bits, from the fourth on as differences: maskApi.c."""

    def packed(*corners):
        runs, text = _runs(*corners), ""
        for at, run in enumerate(runs):
            value = run - runs[at - 2] if at > 2 else run
            while not -16 <= value < 16:
                text += chr(48 + (value & 31) + 32)
                value >>= 5
            text += chr(48 + (value & 31))
        return {"size": [HEIGHT, WIDTH], "counts": text}

    return Layout(_with_outlines(scenes, packed), _truth(scenes))


def coco_where_all_are_crowds(scenes):
    content = _coco(scenes, iscrowd=1)
    return Layout({"annotations/instances_default.json": json.dumps(content)}, _truth(scenes))


def coco_with_a_crowd(scenes):
    content = _coco(scenes, iscrowd=0)
    crowd = {"id": 999, "image_id": 0, "category_id": 1, "bbox": [0, 0, 63, 31], "iscrowd": 1}
    content["annotations"].append(crowd)
    return Layout({"coco.json": json.dumps(content)}, _truth(scenes), {"crowd left out": 1})


def coco_with_pictures_of_others(scenes):
    content = _coco([*scenes, Scene("elsewhere", scenes[0].boxes)])
    return Layout({"coco.json": json.dumps(content)}, _truth(scenes), {"unknown image": 1})


def label_studio(scenes):
    def region(box):
        label, x0, y0, x1, y1 = box
        value = {"x": x0 / WIDTH * 100, "y": y0 / HEIGHT * 100, "rotation": 0}
        value |= {"width": (x1 - x0) / WIDTH * 100, "height": (y1 - y0) / HEIGHT * 100}
        kind = "rectanglelabels"
        size = {"original_width": WIDTH, "original_height": HEIGHT}
        return {"type": kind, "value": value | {kind: [label]}, **size}

    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{s.name}.png"},
            "annotations": [{"result": [region(box) for box in s.boxes]}],
        }
        for number, s in enumerate(scenes)
    ]
    return Layout({"project-1.json": json.dumps(tasks)}, _truth(scenes))


def cvat_for_images(scenes):
    images = "".join(
        f'<image id="{n}" name="{s.name}.png" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(
            f'<box label="{label}" xtl="{x0}.00" ytl="{y0}.00" xbr="{x1}.00" ybr="{y1}.00"/>'
            for label, x0, y0, x1, y1 in s.boxes
        )
        + "</image>"
        for n, s in enumerate(scenes)
    )
    text = f"<?xml version='1.0' encoding='utf-8'?><annotations>{images}</annotations>"
    return Layout({"annotations.xml": text}, _truth(scenes))


def fiftyone_samples(scenes):
    samples = [
        {
            "filepath": f"data/{s.name}.png",
            "ground_truth": {
                "_cls": "Detections",
                "detections": [
                    {
                        "_cls": "Detection",
                        "label": label,
                        "bounding_box": [
                            x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT,
                        ],
                    }
                    for label, x0, y0, x1, y1 in s.boxes
                ],
            },
        }
        for s in scenes
    ]  # fmt: skip
    return Layout(
        {"samples.json": json.dumps({"samples": samples}), "metadata.json": "{}"},
        _truth(scenes, "data/{}.png"),
    )


def fiftyone_classes(scenes):
    labels = {s.name: number % 3 for number, s in enumerate(scenes)}
    text = json.dumps({"classes": list(CLASSES), "labels": labels})
    truth = {f"data/{s.name}.png": (CLASSES[n % 3], ()) for n, s in enumerate(scenes)}
    return Layout({"labels.json": text}, truth)


def episodes():
    """RLDS: two episodes of two steps and two cameras. Return files, and pictures in order."""
    cameras = {name: {"image": {}, "pythonClassName": "x"} for name in ("front", "wrist")}
    steps = {"featuresDict": {"features": cameras}, "pythonClassName": "x"}
    features = {"steps": {"sequence": {"feature": steps, "length": "-1"}, "pythonClassName": "x"}}
    info = {"name": "arm", "fileFormat": "tfrecord", "version": "1.0.0"}
    info["splits"] = [{"name": "train", "shardLengths": ["2"]}]
    records, pictures = b"", []
    for number in range(2):
        shown = {name: [picture(10 * number + 5 * at + step) for step in range(2)]
                 for at, name in enumerate(cameras)}  # fmt: skip
        pictures += [(f"steps/{name}", shown[name][step]) for step in range(2) for name in cameras]
        lists = b""
        for name, listed in shown.items():
            values = _field(1, b"".join(_field(1, each) for each in listed))
            lists += _field(1, _field(1, f"steps/{name}".encode()) + _field(2, values))
        record = _field(1, lists)
        head = struct.pack("<Q", len(record))
        records += head + _checksum(head) + record + _checksum(record)
    files = {
        "dataset_info.json": json.dumps(info),
        "features.json": json.dumps({"featuresDict": {"features": features}}),
        "arm-train.tfrecord-00000-of-00001": records,
    }
    return files, pictures


def _field(number, content):
    """Return a field of a protobuf message that has a length."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def _checksum(data):
    """Return the CRC-32C that TensorFlow writes: rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


EXPORTS = {
    made.__name__.replace("_", " "): made
    for made in (
        *(coco_of_fiftyone, coco_of_label_studio_on_windows, coco_with_addresses, coco_of_cvat),
        *(coco_in_the_order_of_lvis, coco_in_each_folder, coco_that_powershell_wrote),
        *(coco_of_whole_pictures, coco_of_polygons, coco_of_masks, coco_of_packed_masks),
        *(coco_where_all_are_crowds, coco_with_a_crowd, coco_with_pictures_of_others),
        *(label_studio, cvat_for_images, fiftyone_samples, fiftyone_classes),
    )
}

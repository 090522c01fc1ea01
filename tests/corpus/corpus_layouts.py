"""Data sets as tools and people lay them out, beside the labels that must come out of them.

Every layout is written from the same scenes by its tool's own definition: shares of the picture for
YOLO, corners for Pascal VOC, a center in pixels for CreateML. Nothing of the project is used. The
pictures are 64 x 32, so that every share of a whole pixel is an exact decimal.
"""

import json
from typing import Any, NamedTuple

import numpy as np
from corpus_files import write_png

WIDTH, HEIGHT = 64, 32
CLASSES = ("bin", "cart", "cone")
Files = dict[str, Any]  # name -> bytes or text


class Scene(NamedTuple):
    """What a picture shows."""

    name: str  # without suffix
    boxes: tuple[tuple[str, int, int, int, int], ...]  # label, left, top, right, bottom

    @property
    def label(self):
        """The label of the largest box."""
        return max(self.boxes, key=lambda b: (b[3] - b[1]) * (b[4] - b[2]))[0] if self.boxes else ""


class Layout(NamedTuple):
    """Files, and what must be read of them."""

    files: Files  # without the pictures
    truth: dict[str, tuple[str, tuple[Any, ...]]]  # picture -> label, boxes
    damage: dict[str, int] = {}  # noqa: RUF012  kind -> count


def scenes_of(rng, names="abcd"):
    """Return a scene for each name; the last one is empty. Every area is another one."""
    scenes = []
    for name in names[:-1]:
        areas, boxes = set(), []
        while len(boxes) < 3:
            left, top = int(rng.integers(0, WIDTH - 9)), int(rng.integers(0, HEIGHT - 9))
            right, bottom = int(rng.integers(left + 8, WIDTH)), int(rng.integers(top + 8, HEIGHT))
            if (right - left) * (bottom - top) in areas:
                continue
            areas.add((right - left) * (bottom - top))
            boxes.append((str(rng.choice(CLASSES)), left, top, right, bottom))
        scenes.append(Scene(name, tuple(boxes)))
    return [*scenes, Scene(names[-1], ())]


def picture(seed):
    """Return a PNG file."""
    return write_png(np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))


def _truth(scenes, place="{}.png"):
    return {place.format(s.name): (s.label, s.boxes) for s in scenes}


def _unlabelled(scenes, place="{}.png"):
    return {place.format(s.name): ("", ()) for s in scenes}


def _shares(box):
    """Return center and size as shares of the picture, as texts."""
    _, left, top, right, bottom = box
    numbers = ((left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT)
    return [repr(n) for n in (*numbers, (right - left) / WIDTH, (bottom - top) / HEIGHT)]


def _yolo(scene, behind="", classes=CLASSES):
    return "".join(
        f"{classes.index(box[0])} {' '.join(_shares(box))}{behind}\n" for box in scene.boxes
    )


def _outline(scene):
    lines = []
    for label, left, top, right, bottom in scene.boxes:
        x0, x1, y0, y1 = left / WIDTH, right / WIDTH, top / HEIGHT, bottom / HEIGHT
        middle = (x0 + x1) / 2
        points = (x0, y0, middle, y0, x1, y0, x1, y1, x0, y1)
        lines.append(f"{CLASSES.index(label)} {' '.join(map(repr, points))}\n")
    return "".join(lines)


def _voc(scene, name="", size=(WIDTH, HEIGHT)):
    objects = "".join(
        f"<object><name>{label}</name><pose>Unspecified</pose><bndbox><xmin>{x0}</xmin>"
        f"<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, x0, y0, x1, y1 in scene.boxes
    )
    return (
        f"<annotation><folder>x</folder><filename>{name or scene.name + '.png'}</filename><size>"
        f"<width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"
    )


def _rows(scenes, name="{}.png", sign=","):
    return "".join(
        f"{sign.join(map(str, (name.format(s.name), WIDTH, HEIGHT, *box)))}\r\n"
        for s in scenes
        for box in s.boxes
    )


TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax\r\n"
YAML = "train: images\nval: images\nnames: [bin, cart, cone]\n"
NAMES = "bin\ncart\ncone\n"


def voc_beside(scenes):
    return Layout({f"{s.name}.xml": _voc(s) for s in scenes}, _truth(scenes))


def voc_2007(scenes):
    files = {f"VOC2007/Annotations/{s.name}.xml": _voc(s) for s in scenes}
    files["VOC2007/ImageSets/Main/train.txt"] = "a\nb\n"
    return Layout(files, _truth(scenes, "VOC2007/JPEGImages/{}.png"))


def voc_in_class_folders(scenes):
    files = {f"cone/{s.name}.xml": _voc(s) for s in scenes}
    return Layout(files, _truth(scenes, "cone/{}.png"))


def voc_of_another_machine(scenes):
    files = {f"xml/{i}.xml": _voc(s, f"C:\\data\\{s.name}.PNG") for i, s in enumerate(scenes)}
    return Layout(files, _truth(scenes, "photos/{}.png"))


def voc_of_other_sizes(scenes):
    files = {f"{s.name}.xml": _voc(s, size=(2 * WIDTH, 2 * HEIGHT)) for s in scenes}
    return Layout(files, _unlabelled(scenes), {"boxes of another size": len(scenes) - 1})


def voc_in_utf_16(scenes):
    head = '<?xml version="1.0" encoding="utf-16"?>'
    files = {f"{s.name}.xml": (head + _voc(s)).encode("utf-16") for s in scenes}
    return Layout(files, _truth(scenes))


def roboflow_csv(scenes):
    files = {"train/_annotations.csv": TABLE + _rows(scenes), "README.roboflow.txt": "hello"}
    return Layout(files, _truth(scenes, "train/{}.png"))


def csv_of_a_german_excel(scenes):
    table = ("sep=;\r\n" + TABLE.replace(",", ";") + _rows(scenes, "{}.png", ";")).encode("utf-16")
    return Layout({"annotations.csv": table}, _truth(scenes, "img/{}.png"))


def csv_with_windows_paths(scenes):
    table = "file,label,x0,y0,x1,y1\n" + "".join(
        f"D:\\x\\photos\\{s.name.upper()}.PNG,{','.join(map(str, box))}\n"
        for s in scenes
        for box in s.boxes
    )
    table += "D:\\x\\photos\\none.png,bin,1,2,3,4\n"
    return Layout({"labels.csv": table}, _truth(scenes, "photos/{}.png"), {"unknown image": 1})


def csv_of_whole_pictures(scenes):
    rows = "".join(f"{s.name};{s.label}\n" for s in scenes)
    truth = {f"{s.name}.png": (s.label, ()) for s in scenes}
    return Layout({"labels.csv": "\ufeffImage_Path;Class\n" + rows}, truth)


def roboflow_classes(scenes):
    rows = "".join(
        f"{s.name}.png,{','.join(str(int(c == s.label)) for c in CLASSES)}\n" for s in scenes
    )
    truth = {f"test/{s.name}.png": (s.label, ()) for s in scenes}
    return Layout({"test/_classes.csv": f"filename, {', '.join(CLASSES)}\n{rows}"}, truth)


def createml(scenes):
    listed = [
        {
            "image": f"{s.name}.png",
            "annotations": [
                {
                    "label": label,
                    "coordinates": {
                        "x": (x0 + x1) / 2,
                        "y": (y0 + y1) / 2,
                        "width": x1 - x0,
                        "height": y1 - y0,
                    },
                }
                for label, x0, y0, x1, y1 in s.boxes
            ],
        }
        for s in scenes
    ]
    files = {"valid/_annotations.createml.json": json.dumps(listed)}
    return Layout(files, _truth(scenes, "valid/{}.png"))


def roboflow_darknet(scenes):
    files = {f"train/{s.name}.txt": _yolo(s) for s in scenes} | {"train/_darknet.labels": NAMES}
    return Layout(files, _truth(scenes, "train/{}.png"))


def label_img(scenes):
    files = {f"images/{s.name}.txt": _yolo(s) for s in scenes} | {"images/classes.txt": NAMES}
    return Layout(files, _truth(scenes, "images/{}.png"))


def darknet_voc(scenes):
    files = {f"VOC/labels/{s.name}.txt": _yolo(s).encode("utf-16") for s in scenes}
    return Layout(files | {"voc.names": NAMES}, _truth(scenes, "VOC/JPEGImages/{}.png"))


def cvat_yolo(scenes):
    files = {f"obj_train_data/{s.name}.txt": _yolo(s) for s in scenes}
    files |= {"obj.names": NAMES, "obj.data": "classes = 3\nnames = data/obj.names\n"}
    return Layout(files, _truth(scenes, "obj_train_data/{}.png"))


def pose_of_five_points(scenes):
    points = " 0.5 0.5 2 0.25 0.5 1 0.5 0.25 2 0.125 0.5 0 0.5 0.75 2"
    files = {f"labels/{s.name}.txt": _yolo(s, points) for s in scenes}
    files["data.yaml"] = YAML + "kpt_shape: [5, 3]\n"
    return Layout(files, _truth(scenes, "images/{}.png"))


def pose_of_two_points(scenes):
    files = {f"labels/{s.name}.txt": _yolo(s, " 0.5 0.5 0.25 0.5") for s in scenes}
    return Layout(
        files | {"data.yaml": YAML + "kpt_shape: [2, 2]\n"}, _truth(scenes, "images/{}.png")
    )


def pose_without_its_shape(scenes):
    files = {f"labels/{s.name}.txt": _yolo(s, " 0.5 0.5 2 0.25 0.5 1") for s in scenes}
    bad = sum(len(s.boxes) for s in scenes)
    truth = _unlabelled(scenes, "images/{}.png")
    return Layout(files | {"data.yaml": YAML}, truth, {"bad label line": bad})


def tracks(scenes):
    files = {f"labels/{s.name}.txt": _yolo(s, " 0.91 7") for s in scenes} | {"data.yaml": YAML}
    return Layout(files, _truth(scenes, "images/{}.png"))


def outlines(scenes):
    files = {f"labels/{s.name}.txt": _outline(s) for s in scenes} | {"data.yaml": YAML}
    return Layout(files, _truth(scenes, "images/{}.png"))


def lists_of_another_machine(scenes):
    files = {f"labels/train/{s.name}.txt": _yolo(s) for s in scenes}
    files["data.yaml"] = YAML.replace("train: images", "train: train.txt").replace(
        "val: images\n", ""
    )
    files["train.txt"] = "".join(f"/home/u/set/images/train/{s.name}.png\n" for s in scenes)
    return Layout(files, _truth(scenes, "images/train/{}.png"))


def class_folders(scenes):
    truth = {f"{s.label or 'unlabeled'}/{s.name}.png": (s.label, ()) for s in scenes}
    return Layout({}, truth)


def class_folders_in_splits(scenes):
    splits = ("train", "val")
    truth = {
        f"{splits[i % 2]}/{s.label}/{s.name}.png": (s.label, ())
        for i, s in enumerate(scenes)
        if s.label
    }
    return Layout({}, truth)


def class_folders_with_sessions(scenes):
    truth = {
        f"{s.label or 'unlabeled'}/2024-05-0{i + 1}/cam1/{s.name}.png": (s.label, ())
        for i, s in enumerate(scenes)
    }
    return Layout({"notes.txt": "no more rain"}, truth)


def class_folders_of_robots(scenes):
    truth = {f"hall/{s.label or 'none'}/{s.name}.png": ("", ()) for s in scenes}
    return Layout({}, truth, {"labels not clear": 1})


def splits_alone(scenes):
    splits = ("train", "val", "test/images")
    return Layout({}, {f"{splits[i % 3]}/{s.name}.png": ("", ()) for i, s in enumerate(scenes)})


def files_of_an_unknown_tool(scenes):
    files = {f"cone/{s.name}.json": '{"things": [{"kind": "cone"}]}' for s in scenes}
    return Layout(files, _unlabelled(scenes, "cone/{}.png"), {"annotations not read": len(scenes)})


def via(scenes):
    regions = {f"{s.name}.png77": {"filename": f"{s.name}.png", "regions": []} for s in scenes}
    files = {"train/via_region_data.json": json.dumps(regions)}
    return Layout(files, _unlabelled(scenes, "train/{}.png"), {"annotations not read": 1})


def keras_retina_net(scenes):
    rows = "".join(f"cone/{s.name}.png,1,2,30,20,cone\n" for s in scenes)
    truth = _unlabelled(scenes, "cone/{}.png")
    return Layout({"annotations.csv": rows}, truth, {"annotations not read": 1})


LAYOUTS = {
    made.__name__.replace("_", " "): made
    for made in (
        *(voc_beside, voc_2007, voc_in_class_folders, voc_of_another_machine, voc_of_other_sizes),
        *(voc_in_utf_16, roboflow_csv, csv_of_a_german_excel, csv_with_windows_paths),
        *(csv_of_whole_pictures, roboflow_classes, createml, roboflow_darknet, label_img),
        *(darknet_voc, cvat_yolo, pose_of_five_points, pose_of_two_points, pose_without_its_shape),
        *(tracks, outlines, lists_of_another_machine, class_folders, class_folders_in_splits),
        *(class_folders_with_sessions, class_folders_of_robots, splits_alone),
        *(files_of_an_unknown_tool, via, keras_retina_net),
    )
}

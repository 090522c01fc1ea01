"""The pictures that the detection benchmark learns from: boxes by value, splits, shares."""

import itertools
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks import composites, environments, rendered_fleet, rendered_scenes
from benchmarks.scenes import data_set, lens, room, surfaces, things
from benchmarks.scenes.data_set import EMPTY, TRAINING, class_shares, drives, generator, stamps
from benchmarks.scenes.layers import HEIGHT, WIDTH, Layer, look, paint
from benchmarks.scenes.lens import Lens, expose
from edge_agent.data.label_formats.yolo.yolo import YoloFormat
from edge_agent.examples.example_store import ExampleStore
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box


def block(label, left, top, width, height, color=200.0, alpha=1.0):
    """Return a layer of one color."""
    shape = (height, width)
    full = np.full(shape, alpha, np.float32)
    return Layer(label, left, top, np.full((*shape, 3), color, np.float32), full)


def corners(boxes):
    return [(box.label, box.x0, box.y0, box.x1, box.y1) for box in boxes]


def test_a_box_goes_around_the_pixels_of_a_mask_that_nothing_covers():
    far = block("duck", 100, 50, 60, 40)
    far.alpha[:, 50:] = 0.4  # soft edges are no part of it
    near = block("mug", 80, 40, 50, 30)

    seen = look([far, near])

    # The mug hides columns 100 to 129 of rows 50 to 69: below it the duck is as wide as before.
    assert corners(seen.boxes) == [("duck", 100, 50, 150, 90), ("mug", 80, 40, 130, 70)]
    assert seen.shares == ((50 * 40 - 30 * 20) / (50 * 40), 1)
    assert seen.layers == (far, near)


def test_what_is_cut_by_the_picture_has_a_box_inside_it_and_a_smaller_share():
    seen = look([block("duck", -30, HEIGHT - 20, 60, 40)])

    assert corners(seen.boxes) == [("duck", 0, HEIGHT - 20, 30, HEIGHT)]
    assert seen.shares == (0.25,)


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (block("duck", 100, 100, 100, 100), "hidden"),
        (block("duck", 10, 10, 15, 40), "small"),
        (block("duck", -80, 10, 60, 60), "outside"),
        (block("duck", 10, HEIGHT, 60, 60), "outside"),
        (block("duck", WIDTH - 10, 10, 60, 60), "hidden"),
    ],
)
def test_a_thing_without_a_box_is_not_painted_and_is_counted(thing, reason):
    clutter = block("", 100, 100, 76, 100)  # leaves 24 of the first one's 100 columns

    seen = look([thing, clutter])

    assert (seen.layers, seen.boxes, seen.left_out) == ((clutter,), (), (reason,))


def test_a_thing_that_is_left_out_covers_nothing():
    behind = block("mug", 102, 105, 20, 20)
    hidden = block("duck", 100, 100, 100, 100)
    before = block("", 130, 100, 80, 100)

    seen = look([behind, hidden, before])

    assert seen.left_out == ("hidden",)  # the mug; 30 of the duck's 100 columns can be seen
    assert corners(seen.boxes) == [("duck", 100, 100, 130, 200)]

    before = block("", 120, 100, 80, 100)
    seen = look([behind, hidden, before])
    assert seen.left_out == ("hidden",)
    assert corners(seen.boxes) == [("mug", 102, 105, 120, 125)]


def test_paint_mixes_by_alpha_and_stays_in_the_picture():
    picture = np.full((HEIGHT, WIDTH, 3), 100, np.float32)

    paint(picture, [block("", -2, -3, 5, 5, 200, 0.25), block("", 1, 0, 9, 1, 20)])

    assert picture[0, :5, 0].tolist() == [125, 20, 20, 20, 20]
    assert picture[1, :5, 2].tolist() == [125, 125, 125, 100, 100]
    assert picture[2:].min() == 100


@pytest.mark.parametrize("frames", [1, 50, 240])
def test_drives_have_all_frames_and_a_seventh_of_them_passes_nothing(frames):
    made = list(drives(frames, generator(4, "drives", "hall-1/r1")))

    assert sum(length for length, _ in made) == frames
    empty = sum(length for length, is_empty in made if is_empty)
    assert EMPTY * frames - 4 < empty <= round(EMPTY * frames)


def test_no_drive_goes_on_into_the_next_ten_seconds():
    lengths = [8, 4, 8, 8]

    made = list(stamps(lengths))

    assert made[:2] == [data_set.START_NS, data_set.START_NS + 10**9 // 2]
    drive_of = list(itertools.chain(*([drive] * n for drive, n in enumerate(lengths))))
    segments = {}
    for drive, stamp in zip(drive_of, made, strict=True):
        segments.setdefault(drive, set()).add(stamp // 10**10)
    assert [len(own) for own in segments.values()] == [1] * 4
    pauses = [made[begin] - made[begin - 1] for begin in (8, 12, 20)]
    assert pauses == [1_500_000_000, 3_500_000_000, 1_500_000_000]


def test_shares_are_skewed_or_equal():
    skewed = np.mean([class_shares(generator(n), 8, "dirichlet").max() for n in range(50)])
    assert skewed > 0.35
    assert class_shares(generator(1), 8, "uniform").tolist() == [0.125] * 8


PLAIN = Lens(
    light=(0.5, 1.0, 0.25), gamma=1.0, vignette=0.0, blur_px=0.0, motion_px=0.0, noise=0.0,
    jpeg_quality=95,
)  # fmt: skip


def test_a_lens_tints_the_light_and_darkens_the_corners(monkeypatch):
    gray = np.full((HEIGHT, WIDTH, 3), 200, np.float32)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(lens, "EXPOSURE", (1.0, 1.0))

    plain = cv2.imdecode(np.frombuffer(expose(gray, PLAIN, rng), np.uint8), 1)

    np.testing.assert_allclose(plain[240, 320], (100, 200, 50), atol=3)
    np.testing.assert_allclose(plain[0, 0], (100, 200, 50), atol=3)
    dark = expose(gray, replace(PLAIN, vignette=0.4), rng)
    dim = cv2.imdecode(np.frombuffer(dark, np.uint8), 1)
    np.testing.assert_allclose(dim[240, 320], (100, 200, 50), atol=3)
    np.testing.assert_allclose(dim[0, 0], (60, 120, 30), atol=3)


@pytest.fixture(scope="module")
def hall():
    return room.Room(np.random.default_rng(3), surfaces.tiles)


def test_a_point_on_the_floor_is_where_the_ray_of_its_pixel_ends(hall):
    view = room.view_of(np.array([2.0, 1.5, 0.8]), 0.7, 0.4, 0.05, 500.0)
    row, column = 400, 123

    ray = room._rays(view, row - 7)[:, 7, column].astype(float)
    point = view.eye + ray * (view.eye[2] / -ray[2])

    assert point[2] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(view.project(point[None])[0, :2], (123.5, 400.5), atol=1e-3)


def test_a_shadow_falls_away_from_the_lamp_and_darkens_the_floor_alone(hall):
    shade = np.ones(hall.light_map(), np.float32)
    spot = hall.lamp[:2] + np.array([1.0, 0.0])
    east = np.array([1.0, 0.0])
    tall = np.array([[*(spot + d), z] for d in (0.1, -0.1) for z in (0, 0.5)])

    hall.shadow(shade, tall)

    dark = np.argwhere(shade < 0.99) / room.LIGHT_PX_M
    assert dark[:, 1].max() > spot[0] + 0.2  # farther from the lamp than the thing reaches
    assert dark[:, 1].min() > spot[0] - 0.13
    far = int((spot[0] + 0.18) * room.LIGHT_PX_M)
    assert shade[int(spot[1] * room.LIGHT_PX_M), far] == pytest.approx(hall.ambient, abs=0.01)
    assert shade.min() == pytest.approx(hall.ambient * room.TOUCHED, abs=0.01)
    view = room.view_of(np.array([*(spot - 1.2 * east), 0.9]), 0.0, 0.5, 0.0, 400.0)
    with_it, without = hall.picture(view, shade), hall.picture(view)
    column, row, _ = view.project(np.array([[*(spot + 0.15 * east), 0]]))[0].astype(int)
    assert with_it[row, column].sum() < 0.9 * without[row, column].sum()
    np.testing.assert_array_equal(with_it[:40], without[:40])


class Pile(dict):
    """Meshes that are boxes; nothing is rendered, each is as large as its corners say."""

    class Mesh:
        points = np.array(list(itertools.product((0, 1), (0, 0.6), (0, 0.8))), float)

        def draw(self, thing, view, lamp, ambient):
            seen = view.project(thing.points)
            if seen[:, 2].min() < 0.05:
                return None
            low, high = seen[:, :2].min(0).astype(int), seen[:, :2].max(0).astype(int) + 1
            return block(thing.label, *low.tolist(), *(high - low).tolist())

    def __missing__(self, file):
        return self.Mesh()


@pytest.fixture
def without_bullet(monkeypatch):
    monkeypatch.setattr(rendered_scenes, "Meshes", Pile)


def test_a_robot_s_frames_have_boxes_that_are_large_enough_and_inside(without_bullet, tmp_path):
    made = rendered_scenes.write_scenes(tmp_path / "r1", "hall-1/r1", 40, 5)

    entries = list(YoloFormat().entries(tmp_path / "r1", damage := DamageLog()))
    frames = [entry.load() for entry in entries]
    assert not damage.all()
    assert len(frames) == made["frames"] == 40
    boxes = [box for frame in frames for box in frame.boxes]
    assert len(boxes) == sum(made["boxes"].values()) > 40
    for box in boxes:
        assert min(box.x1 - box.x0, box.y1 - box.y0) >= 16
        assert 0 <= box.x0 < box.x1 <= WIDTH
        assert 0 <= box.y0 < box.y1 <= HEIGHT
        assert box.label in rendered_scenes.LABELS
    empty = sum(not frame.boxes for frame in frames)
    assert empty == made["empty"]
    assert 2 <= empty <= 12
    assert cv2.imdecode(np.frombuffer(frames[0].frame.data, np.uint8), 1).shape == (480, 640, 3)


def test_the_name_and_the_seed_decide_every_byte(without_bullet, tmp_path):
    def content(name, robot, seed):
        rendered_scenes.write_scenes(tmp_path / name, robot, 6, seed)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        return {file.relative_to(tmp_path / name).as_posix(): file.read_bytes() for file in files}

    first = content("a", "hall-1/r1", 1)

    assert content("b", "hall-1/r1", 1) == first
    for other in (content("c", "hall-1/r2", 1), content("d", "hall-1/r1", 2)):
        pictures = [name for name in other if name.endswith(".jpg")]
        assert len(pictures) == 6
        assert not {other[name] for name in pictures} & set(first.values())


def test_a_fleet_has_seven_robots_and_those_that_never_train_meet_all_classes_equally_often(
    monkeypatch, tmp_path
):
    asked = {}
    monkeypatch.setattr(environments, "environment", lambda name: None)
    monkeypatch.setattr(
        rendered_scenes, "render", lambda place, name, *rest: asked.update({name: (place, *rest)})
    )

    places = rendered_scenes.render_fleet(tmp_path / "fleet", 30, 20, 4)

    assert len(places) == 7
    assert asked["hall-2/r1"] == (tmp_path / "fleet" / "hall-2-r1", 30, 4, "dirichlet")
    assert asked["hall-4/r1"] == (places["hall-4/r1"], 20, 4, "uniform")
    assert {name for name, (*_, prior) in asked.items() if prior == "dirichlet"} == set(TRAINING)


def test_a_thing_stands_on_the_floor_and_lies_on_its_side_when_it_is_tipped():
    mesh = Pile.Mesh()
    mesh.points = np.array(list(itertools.product((0, 0.2), (0, 1), (0, 0.4))), float)  # y is up
    spot = np.array([2.0, 3.0])

    def sizes(turn):
        points = things.Thing(mesh, "", turn, 0.5, spot, (1, 1, 1)).points
        assert points[:, 2].min() == pytest.approx(0)
        np.testing.assert_allclose(points[:, :2].mean(0), spot)
        return np.ptp(points, 0)

    np.testing.assert_allclose(sizes(things.turn_of(np.pi / 2, 0)), (0.1, 0.2, 0.5), atol=1e-6)
    tipped = things.turn_of(np.pi / 2, 0, np.pi / 2)
    np.testing.assert_allclose(sizes(tipped), (0.5, 0.2, 0.1), atol=1e-6)


def test_a_quaternion_turns_as_its_matrix_does():
    turn = things.turn_of(np.pi / 2, 0)
    np.testing.assert_allclose(things._quaternion(turn), (0.5**0.5, 0, 0, 0.5**0.5), atol=1e-9)
    np.testing.assert_allclose(things._quaternion(np.eye(3)), (0, 0, 0, 1), atol=1e-9)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Ten drawings of each class: discs of one color; two of them are of the same drawing."""
    root = tmp_path / "stamps"
    names = [
        f"{word}_1" for word in ("oak", "elm", "fir", "ash", "yew", "box", "bay", "fig", "hop")
    ]
    for number, folder in enumerate(composites.FOLDERS.values()):
        (root / folder).mkdir(parents=True)
        for shade, name in enumerate([*names, "oak-2"]):
            picture = np.zeros((60, 80, 4), np.uint8)
            cv2.ellipse(
                picture, (40, 30), (38, 28), 0, 0, 360, (25 * shade, 30 * number, 99, 255), -1
            )
            cv2.imwrite(str(root / folder / f"{name}.png"), picture)
        cv2.imwrite(str(root / folder / "oak_mirror.png"), picture)
        cv2.imwrite(str(root / folder / "without_alpha.png"), picture[..., :3])
    monkeypatch.setattr(composites, "unpacked", lambda package, folder: root)
    return root


def test_no_drawing_is_for_training_and_unseen(drawn):
    files = composites.files_of(drawn / "plants/flowers")
    assert len(files) == 10

    training, unseen = (composites.split(files, trains=trains) for trains in (True, False))

    assert sorted([*training, *unseen]) == files
    words = [{composites.drawing_of(file) for file in part} for part in (training, unseen)]
    assert not words[0] & words[1]
    assert [len(part) for part in words] == [6, 3]  # of 9
    robots = [composites.draw_robot(name, 1, drawn) for name in ("hall-2/r2", "hall-3/r1")]
    assert robots[0].drawings["flower"] == training
    assert robots[1].drawings["flower"] == unseen
    assert not set(robots[0].photos) & set(robots[1].photos)


def test_composites_have_boxes_around_drawings_and_read_as_examples(drawn, tmp_path):
    made = composites.write_composites(tmp_path / "r1", "hall-1/r1", 40, 2)
    again = composites.write_composites(tmp_path / "r2", "hall-1/r1", 40, 2)

    same = {"ms_a_frame": 0}
    assert {**made, **same} == {**again, **same}
    first, second = (sorted((tmp_path / name / "images").iterdir()) for name in ("r1", "r2"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    examples = list(ExampleStore([tmp_path / "r1"], "", "", ()).examples())
    assert {example.held_out for example in examples} == {True, False}
    boxes = [box for example in examples for box in example.boxes]
    assert len(boxes) > 60
    assert all(min(box.x1 - box.x0, box.y1 - box.y0) >= 16 for box in boxes)
    assert 4 <= made["empty"] <= 10
    assert made["covered"] > 0.1


def test_a_drawing_is_pasted_where_it_was_meant_to_be():
    picture = np.full((100, 200, 4), 255, np.uint8)
    pasted = composites.Pasted(
        "bird", picture, 50.0, 0.0, np.ones(3, np.float32), np.array([300.0, 200.0])
    )

    (box,) = look([pasted.layer(1.0, np.zeros(2))]).boxes
    assert box == approximately(275, 187.5, 325, 212.5)
    (box,) = look([pasted.layer(2.0, np.array([10.0, -4.0]))]).boxes
    assert box == approximately(240, 131, 340, 181)  # (300, 200) goes to (290, 156)


def approximately(x0, y0, x1, y1):
    """Return a box that equals others up to 1.5 pixels."""

    class Near:
        def __eq__(self, other):
            sides = np.array([other.x0 - x0, other.y0 - y0, other.x1 - x1, other.y1 - y1])
            return bool((abs(sides) <= 1.5).all())

        def __repr__(self):
            return repr(Box(label="", x0=x0, y0=y0, x1=x1, y1=y1))

        __hash__ = None

    return Near()


def test_a_request_that_cannot_be_met_is_one_clear_line(tmp_path, capsys):
    for arguments, words in (
        ([str(tmp_path)], "exists; remove it or choose another OUT"),
        ([str(tmp_path / "new"), "--frames", "0"], "--frames must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            data_set.command_line("Doc.", lambda *_: None, arguments)
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_one_command_renders_the_fleet_and_says_in_one_line_what_failed(
    tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setattr(rendered_fleet, "render_fleet", lambda *given: asked.append(given))
    rendered_fleet.main([str(tmp_path), "--frames", "30", "--unseen-frames", "20", "--seed", "4"])
    assert asked == [(tmp_path, 30, 20, 4)]

    def fail(*_):
        raise subprocess.CalledProcessError(1, ["/bin/uv", "pip"])

    monkeypatch.setattr(rendered_fleet, "render_fleet", fail)
    for words, code, told in (([], 1, "uv ended with 1"), (["--frames", "0"], 2, "at least 1")):
        with pytest.raises(SystemExit) as ended:
            rendered_fleet.main([str(tmp_path), *words])
        assert ended.value.code == code
        assert told in capsys.readouterr().err


def test_all_photographs_are_in_the_package():
    for name in {name for names in composites.PHOTOS.values() for name in names}:
        assert surfaces.photo(name).ndim == 3

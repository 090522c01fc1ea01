import pytest

pytestmark = pytest.mark.base

BOX = '<box label="cone" xtl="8" ytl="6" xbr="16.5" ybr="12"/>'


def xml(shapes, name="a.jpg", size=(32, 24)):
    image = f'<image id="0" name="{name}" width="{size[0]}" height="{size[1]}">{shapes}</image>'
    return f"<annotations><version>1.1</version>{image}</annotations>"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (BOX, ("cone", [("cone", 8.0, 6.0, 16.5, 12.0)])),
        ('<polygon label="cone" points="8,6;16.5,7;9,12"/>', ("cone", [("cone", 8, 6, 16.5, 12)])),
        ('<mask label="cone" rle="0,9" left="8" top="6" width="3" height="3"/>',
         ("cone", [("cone", 8, 6, 11, 9)])),
        ('<ellipse label="cone" cx="8" cy="6" rx="3" ry="2"/>', ("cone", [("cone", 5, 4, 11, 8)])),
        ('<tag label="clear" source="manual"/>', ("clear", [])),
        ("", ("", [])),
    ],
)  # fmt: skip
def test_what_people_draw_becomes_the_box_around_it(read_set, shapes, expected):
    assert read_set({"images/a.jpg": None, "annotations.xml": xml(shapes)}) == {
        "images/a.jpg": expected
    }
    assert not read_set.damage


def test_a_turned_box_becomes_the_upright_box_around_it(read_set):
    shape = '<box label="cone" xtl="8" ytl="6" xbr="16" ybr="10" rotation="90"/>'
    ((_, (box,)),) = read_set({"a.jpg": None, "annotations.xml": xml(shape)}).values()
    assert box[1:] == pytest.approx((10, 4, 14, 12))


def test_what_has_no_area_or_no_numbers_is_counted(read_set):
    shapes = (
        '<points label="cone" points="1,2"/><polyline label="cone" points="1,2;3,4"/>'
        '<cuboid label="cone"/><skeleton label="cone"/>'
        '<box label="cone" xtl="x" ytl="6" xbr="16" ybr="10"/>'
        '<box xtl="1" ytl="1" xbr="2" ybr="2"/>'
        '<polygon label="cone" points="1;2"/><polygon label="cone" points=""/>'
    )
    read_set({"a.jpg": None, "annotations.xml": xml(shapes + BOX)})
    assert {kind: count for kind, (count, _) in read_set.damage.items()} == {
        "shape not read": 4,
        "bad label": 4,
    }


def test_boxes_of_a_video_are_not_guessed(read_set):
    text = '<annotations><track id="0" label="cone"><box frame="0" xtl="1"/></track></annotations>'
    assert read_set({"train/a.jpg": None, "annotations.xml": text}) == {"train/a.jpg": ("", [])}
    ((count, why),) = read_set.damage.values()
    assert (count, "export the task as" in why) == (1, True)


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY b "cone"><!ENTITY c "&b;&b;&b;">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
    ],
)
def test_hostile_xml_is_refused_before_anything_is_expanded_or_fetched(read_set, head):
    assert read_set({"train/a.jpg": None, "annotations.xml": head + xml(BOX)}) == {
        "train/a.jpg": ("", [])
    }
    assert read_set.damage["annotations not read"][0] == 1

"""Images found by the names that other tools give them: each kind of name, and names that could be of two images."""

import pytest

from tf_fast_rcnn.data.image_names import ImageNames, best_by_folders, path_parts, trailing_number
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError


def names_of(*images):
    """`images`: (image_id, path) each, or (image_id, path, source_id)."""
    records = [
        ImageRecord(image_id, path, 10, 10, [], [], [], source_id=rest[0] if rest else None)
        for image_id, path, *rest in images
    ]
    return ImageNames(records, "data")


def matched(names, found, kind=None):
    matchings = names.match({name: f"entry {number}" for number, name in enumerate(found)}, kind)
    return [(each.kind, [each.positions[name] for name in found]) for each in matchings]


def refusal(names, found, kind=None):
    with pytest.raises(InputError) as caught:
        matched(names, found, kind)
    return str(caught.value)


CAMERAS = names_of(("images/a/1.png", "d/images/a/1.png"), ("images/b/1.png", "d/images/b/1.png"))
COCO = names_of(("9", "d/street.jpg", 9), ("4", "d/park.v2.jpg", 4), ("-1", "d/COCO_val_000000000077.jpg", -1))


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ([4, 9, -1], "id"),
        (["4", "9", "-1"], "id"),
        (["park.v2.jpg", "street.jpg", "COCO_val_000000000077.jpg"], "file"),
        ([r"C:\photos\park.v2.jpg", "/data/street.jpg", "./COCO_val_000000000077.jpg"], "file"),
        (["park.v2", "street", "COCO_val_000000000077"], "stem"),
    ],
)
def test_one_kind_of_name_fits_a_file(found, kind):
    assert matched(COCO, found) == [(kind, [1, 0, 2])]


def test_numbers_at_the_end_of_file_names():
    assert matched(COCO, [77]) == [("number", [2])]
    assert matched(names_of(("a", "0012.jpg"), ("b", "x_0013.jpg")), [13, 12]) == [("number", [1, 0])]
    assert [trailing_number(stem) for stem in ("a_007", "7", "v7", "", "7_")] == [7, 7, None, None, None]


def test_ids_keep_their_type():
    words = names_of(("007", "x/a.png", "007"), ("7", "x/b.png", "7"))
    assert matched(words, ["007", "7"]) == [("id", [0, 1])]
    # A tool that made numbers of these ids cannot tell them apart.
    assert "entry 0: found the image 7, which may be '007', '7' of data" in refusal(words, [7])
    assert matched(names_of(("000012", "a.png"), ("000007", "b.png")), [7, 12]) == [("id", [1, 0])]


def test_folders_tell_files_of_one_name_apart():
    assert matched(CAMERAS, ["b/1.png", "a/1.png"]) == [("file", [1, 0])]
    assert matched(CAMERAS, ["/home/me/b/1.png"]) == [("file", [1])]
    assert matched(CAMERAS, ["b/1", "a/1"]) == [("stem", [1, 0])]
    assert "found the image '1.png', which may be" in refusal(CAMERAS, ["1.png"])
    assert best_by_folders(path_parts("z/1.png"), {0: ["a", "1.png"], 1: ["b", "1.png"]}) == [0, 1]


def test_two_names_of_one_image_are_refused():
    line = refusal(names_of(("cam1/1.png", "d/cam1/1.png")), ["cam1/1.png", "cam2/1.png"])
    assert "found the images 'cam1/1.png' and 'cam2/1.png', which are both 'cam1/1.png' of data" in line


def test_several_kinds_may_fit():
    """Files named by numbers other than the ids: both readings are returned, the id first."""
    names = names_of(("1", "2.jpg", 1), ("2", "1.jpg", 2))
    assert matched(names, [1, 2]) == [("id", [0, 1]), ("stem", [1, 0])]
    assert matched(names, [1, 2], "stem") == [("stem", [1, 0])]


def test_numbers_in_the_order_of_the_images_are_only_used_if_asked_for():
    line = refusal(COCO, [0, 1, 2])
    assert "found the image 0; expected one of the 3 images of data" in line
    assert "pass --images-by order-0 if these are numbers in the order of its images" in line
    assert matched(COCO, [2, 0], "order-0") == [("order-0", [2, 0])]
    assert matched(COCO, [3, 1], "order-1") == [("order-1", [2, 0])]
    assert "found the image 3" in refusal(COCO, [3], "order-0")
    assert "expected one of id, file" in refusal(COCO, [3], "name")


def test_accents_may_be_composed_or_not():
    assert matched(names_of(("1", "d/cafe\u0301.png")), ["caf\u00e9.png"]) == [("file", [0])]


def test_paths_of_any_machine():
    assert path_parts(r"C:\a\.\b//c.png") == ["C:", "a", "b", "c.png"]
    assert path_parts("") == [""]

"""The page's files: complete, without outside resources, and safe for any text in the dataset."""

import dataclasses
import html.parser
import json
import pathlib
import re
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.browsing.findings import KINDS
from tf_fast_rcnn.browsing.page import browse
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.visualization.drawing import class_color

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(html.parser.HTMLParser):
    """Collects a page's tags, links, ids and text; fails if a tag is closed that is not open."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.links, self.ids, self.images, self.text = [], [], [], [], ""
        self._open = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("src", "href", "srcset", "action", "data") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.images += [attributes] if tag == "img" else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page(odd_page):
    return Page(odd_page[0] / "index.html")


def test_every_link_is_a_file_or_a_place_of_the_page(odd_page, page):
    assert len(page.links) > 40
    for link in page.links:
        assert not re.match(r"[a-z]+:|/", link), f"{link} leads out of the folder"
        path, _, place = link.partition("#")
        if path:
            assert (odd_page[0] / urllib.parse.unquote(path)).is_file(), link
        if place:
            assert place in page.ids, link


def test_nothing_comes_from_outside(odd_page, page):
    source = (odd_page[0] / "index.html").read_text()
    assert not re.search(r"https?:|url\(|@import|\bfetch\b|\bimport\b", source)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert "link" not in page.tags
    assert "iframe" not in page.tags


def test_every_file_is_linked_and_every_picture_whole(odd_page, page):
    folder = odd_page[0]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"index.html", *(link for link in page.links if "#" not in link)}
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as picture:
            picture.verify()


def test_pictures_have_alternative_texts_and_their_size(odd_page, page):
    assert len(page.images) > 25
    for image in page.images:
        assert len(image["alt"]) > 10
        if image["src"].endswith(".jpg"):
            assert Image.open(odd_page[0] / image["src"]).size == (int(image["width"]), int(image["height"]))
    assert len(page.ids) == len(set(page.ids))


def test_texts_of_the_dataset_are_shown_and_not_interpreted_as_markup(odd_dataset, odd_page, page):
    source = (odd_page[0] / "index.html").read_text()
    assert "<script>alert" not in source
    assert "<b>" not in source
    for text in (odd_dataset.class_names[2], "voc:<odd>@train", "folder/#1 <b>&amp;"):
        assert text in page.text


def test_the_findings_are_on_the_page(odd_page, page):
    _, facts = odd_page
    for kind, about in KINDS.items():
        assert about.title in page.text
        assert (kind in page.ids) == (facts["counts"][kind] > 0)
        for finding in facts["findings"][kind]:
            assert finding["text"] in page.text
    assert re.search(r"While reading: boxes clipped to their image\s*2", page.text)
    assert "11 images, 15 objects of 4 classes" in page.text
    assert re.search(r"with a recall of 93\.3 %\sat an IoU of 0\.5", page.text), "14 of 15"


def test_findings_json_is_what_is_returned(odd_page):
    folder, facts = odd_page
    assert json.loads((folder / "findings.json").read_text()) == facts
    assert facts["counts"] == {kind: len(findings) for kind, findings in facts["findings"].items()}
    assert facts["recall"]["at_iou_0.5"] == pytest.approx(14 / 15)
    assert facts["findings"]["identical_images"] == [
        {"text": "2 images", "images": ["folder/#0 <b>&amp;", "folder/#3 <b>&amp;"], "indices": [0, 3], "objects": []}
    ]


def test_annotations_and_best_proposals_are_drawn_where_they_are(dataset_of, tmp_path):
    """Both pictures show the object's outline in its colour; the second also its best proposal in black and white."""
    objects, proposals = [[(1, 0.25, 0.25, 0.75, 0.75)]], [[[0, 0, 0.1, 0.1], [0.25, 0.25, 0.75, 0.9]]]
    browse(dataset_of(objects, proposals), tmp_path / "page", progress=False)
    browse(dataset_of([[]], [[]]), tmp_path / "bare", progress=False)

    def drawn(page, name):
        return np.asarray(Image.open(tmp_path / page / "images" / f"000000{name}.jpg")).astype(int)

    annotated, proposed, bare = drawn("page", ""), drawn("page", "-proposals"), drawn("bare", "")
    assert bare.shape == (120, 160, 3)
    color = [int(class_color(1)[start : start + 2], 16) for start in (1, 3, 5)]
    of_object, of_proposal = (slice(40, 80), slice(118, 120)), (slice(40, 88), 143)  # their right edges
    assert np.abs(annotated[of_object] - color).mean() < 30  # JPEG
    assert np.abs(proposed[of_object] - color).mean() < 30
    assert np.abs(bare[of_object] - color).mean() > 60
    assert np.abs(annotated[of_proposal] - bare[of_proposal]).mean() < 10
    dashes = proposed[of_proposal].mean(axis=-1)
    assert dashes.min() < 60
    assert dashes.max() > 195
    assert np.abs(proposed[:8, :12] - bare[:8, :12]).mean() < 10, "not the worse proposal"


def test_a_finding_is_shown_with_its_surroundings(odd_page):
    """The tiny box of 3.6 x 6.4 pixels is shown at twelve times its size."""
    (picture,) = (odd_page[0] / "findings").glob("tiny_boxes-*.jpg")
    assert max(Image.open(picture).size) == 240


def test_images_are_chosen_by_the_seed(odd_dataset, odd_page, tmp_path):
    def chosen(folder):
        return sorted(path.name for path in (folder / "images").glob("??????.jpg"))

    for seed in (0, 1):
        browse(odd_dataset, tmp_path / str(seed), max_images=6, seed=seed, progress=False)
    assert len(chosen(odd_page[0])) == 6
    assert chosen(tmp_path / "0") == chosen(odd_page[0])
    assert chosen(tmp_path / "1") != chosen(odd_page[0])


def test_without_proposals_recall_is_not_mentioned(dataset_of, tmp_path):
    dataset = dataset_of([[(1, 0.2, 0.2, 0.7, 0.7)]])
    facts = browse(dataset, tmp_path / "page", progress=False)
    page = Page(tmp_path / "page" / "index.html")
    assert facts["recall"] is None
    assert "recall" not in page.text.lower()
    assert "proposal" not in page.text.lower()


@pytest.mark.parametrize("objects", [[], [[]]])
def test_pages_of_no_images_and_of_no_objects(dataset_of, tmp_path, objects):
    facts = browse(dataset_of(objects, [[]] * len(objects)), tmp_path / "page", progress=False)
    assert (facts["images"], facts["objects"]) == (len(objects), 0)
    assert Page(tmp_path / "page" / "index.html").links


def test_the_folder_appears_only_when_complete(odd_dataset, tmp_path):
    (tmp_path / ".partial-page").mkdir()
    (tmp_path / ".partial-page" / "of a run that was killed").touch()
    gone = dataclasses.replace(odd_dataset[0], image_id="gone", image_path=str(tmp_path / "gone.png"))
    dataset = odd_dataset.with_records([odd_dataset[0], odd_dataset[1], gone])
    with pytest.raises(InputError, match="gone"):
        browse(dataset, tmp_path / "page", progress=False)
    assert list(tmp_path.iterdir()) == []
    facts = browse(dataset, tmp_path / "page", skip_bad=True, unreadable=["lost"], progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    assert [finding["images"] for finding in facts["findings"]["unreadable_images"]] == [["gone"], []]
    assert "lost" in Page(tmp_path / "page" / "index.html").text
    with pytest.raises(InputError, match="found an existing file or folder; expected a new one"):
        browse(dataset, tmp_path / "page", progress=False)


def test_long_lists_are_cut_on_the_page_and_whole_in_the_file(dataset_of, tmp_path):
    rows = [(1, y / 50, x / 50, y / 50 + 0.01, x / 50 + 0.01) for y in range(12) for x in range(12)]
    facts = browse(dataset_of([rows]), tmp_path / "page", progress=False)
    assert facts["counts"]["tiny_boxes"] == 144
    text = Page(tmp_path / "page" / "index.html").text
    assert text.count("cat, 2 x 1 px") == 12 + 100
    assert "and 32 more; findings.json has all of them" in " ".join(text.split())
    assert len(list(pathlib.Path(tmp_path / "page" / "findings").iterdir())) == 12

import pytest

from tf_fast_rcnn.data.prepare import prepare
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.specs import load_dataset
from tf_fast_rcnn.errors import InputError


def animal(folder, name):
    folder.image("a.png")
    folder.annotation("a", [(name, 1, 1, 30, 20)])
    folder.split("train", "a\n")
    return folder


@pytest.fixture
def cats_and_ants(tmp_path, voc_folder):
    other = type(voc_folder)(tmp_path / "c++" / "me@home" / "cells")
    return animal(voc_folder, "cat").path, animal(other, "ant").path


def test_voc(cats_and_ants):
    dataset = load_dataset(f"voc:{cats_and_ants[0]}@train")
    assert dataset.name == f"voc:{cats_and_ants[0]}@train"
    assert dataset.class_names == ("cat",)


def test_union_has_the_sorted_classes_of_all_parts(cats_and_ants):
    # The second location holds plus signs and an @ of its own.
    dataset = load_dataset("+".join(f"voc:{path}@train" for path in cats_and_ants))
    assert dataset.class_names == ("ant", "cat")
    assert [record.labels.tolist() for record in dataset] == [[2], [1]]


def test_given_class_names_hold_for_all_parts(cats_and_ants):
    spec = "+".join(f"voc:{path}@train" for path in cats_and_ants)
    dataset = load_dataset(spec, class_names=["cat", "bee", "ant"])
    assert dataset.class_names == ("cat", "bee", "ant")
    assert [record.labels.tolist() for record in dataset] == [[1], [3]]
    with pytest.raises(InputError, match="'ant'"):
        load_dataset(spec, class_names=["cat"])


@pytest.mark.parametrize("spec", ["cells", "coco:x.json", "voc:", "", "Voc:x@train", "voc:{}@train+coko:x"])
def test_unknown_kinds_list_the_known(cats_and_ants, spec):
    with pytest.raises(InputError, match="one of the kinds voc, prepared"):
        load_dataset(spec.format(cats_and_ants[0]))


def test_voc_without_split_lists_the_splits(cats_and_ants):
    for path in cats_and_ants:
        with pytest.raises(InputError, match="expected one of ImageSets/Main: train"):
            load_dataset(f"voc:{path}")


def test_prepared_follows_class_names(cats_and_ants, tmp_path):
    settings = ProposalSettings(dense=DEFAULT_DENSE_BOXES)
    prepare(load_dataset(f"voc:{cats_and_ants[0]}@train"), tmp_path / "out", settings, workers=1, progress=False)
    dataset = load_dataset(f"prepared:{tmp_path / 'out'}", class_names=["dog", "cat"])
    assert dataset[0].labels.tolist() == [2]
    union = load_dataset(f"prepared:{tmp_path / 'out'}+voc:{cats_and_ants[1]}@train")
    assert [record.labels.tolist() for record in union] == [[2], [1]]


def test_skip_bad_reaches_the_reader(cats_and_ants):
    (cats_and_ants[0] / "ImageSets/Main/train.txt").write_text("a\nnone\n")
    with pytest.raises(InputError, match=r"none\.xml"):
        load_dataset(f"voc:{cats_and_ants[0]}@train")
    assert len(load_dataset(f"voc:{cats_and_ants[0]}@train", skip_bad=True)) == 1

"""Training in tiles: what training sees, and that RUN detects in the same tiles."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training.training_data import training_data

HEIGHT, WIDTH = 240, 320


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four images with eight bright squares of 10 pixels, and one of 100 in the first."""
    folder = tmp_path_factory.mktemp("squares")
    random, rows = np.random.default_rng(0), ["filename,class,xmin,ymin,xmax,ymax"]
    for number in range(4):
        image = random.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        # One square in each field of a grid of 2 x 4, so that none overlap.
        places = [(120 * row + 5, 80 * column + 5) for row in range(2) for column in range(4)]
        sides = [10] * 8
        if number == 0:
            places, sides = [*places[:4], *places[6:], (130, 10)], [10] * 6 + [100]
        for (top, left), side in zip(places, sides, strict=True):
            image[top : top + side, left : left + side] = 250
            rows.append(f"{number}.png,square,{left},{top},{left + side},{top + side}")
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return frcnn.load_dataset(f"csv:{folder / 'boxes.csv'},{folder}")


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return dataclasses.replace(tiny_recipe, tile=48, tile_overlap=0.5, steps=8)


def data_of(dataset, recipe, tmp_path, backbone, **options):
    options = {"workers": 1, "progress": False, "cache_dir": tmp_path} | options
    return training_data(dataset, recipe, backbone=backbone, weights=None, **options)


def test_whole_images_are_a_quarter_and_proposals_are_those_of_views(dataset, recipe, tiny_backbone, tmp_path):
    data = data_of(dataset, recipe, tmp_path, tiny_backbone)
    heights = np.array([record.height for record in data.dataset])
    # 8 mini-batches of 2 images, each tile twice: 8 tiles of 4 images; only one image has an object above 24 pixels.
    assert np.count_nonzero(heights == 48) == 8
    assert np.count_nonzero(heights == HEIGHT) == 3
    assert data.recipe.tiles == data.proposals.tiles == frcnn.Tiles(48, 0.5, True)
    assert data.recipe.sampling.difficult == "ignore"
    assert data.dataset.proposals == dataclasses.replace(data.proposals, tiles=None)
    for record in data.dataset:
        assert record.proposals().max() <= 1


def test_a_run_detects_in_the_tiles_of_its_training(dataset, recipe, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "weights": None, "workers": 1, "cache_dir": tmp_path, "progress": False}
    frcnn.train(dataset, tmp_path / "run", recipe=recipe, **options)
    run = frcnn.load_run(tmp_path / "run")
    assert run.tiles == run.proposals.tiles == frcnn.Tiles(48, 0.5, True)
    predictor = frcnn.Predictor.load(tmp_path / "run", score_threshold=0.01)
    assert predictor.settings.tiles == run.tiles
    image = dataset[1].image()
    found = predictor.detect(image)
    assert len(found) > 0
    # As a whole, the image is seen differently.
    assert not np.array_equal(predictor.with_settings(tile=None).detect(image).scores, found.scores)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["tile"] == 48


def test_unreadable_images_are_refused_or_skipped(dataset, recipe, tiny_backbone, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    records = [dataclasses.replace(dataset[0], image_path=str(broken)), *dataset[1:]]
    data = frcnn.DetectionDataset("broken", dataset.class_names, records)
    with pytest.raises(InputError, match=r"broken\.png: "):
        data_of(data, recipe, tmp_path, tiny_backbone)
    seen = data_of(data, recipe, tmp_path, tiny_backbone, skip_bad=True, progress=True)
    assert len({record.image_path for record in seen.dataset}) == 6
    assert seen.dataset.fixes["unreadable images skipped"] == 1


def test_tiles_do_not_go_with_known_proposals(dataset, recipe, tiny_backbone, tmp_path):
    prepared = frcnn.cached_proposals(
        dataset, frcnn.proposal_settings("dense", dataset), cache_dir=tmp_path, workers=1, progress=False
    )
    with pytest.raises(InputError, match="tile: found 48 with the proposals of csv:"):
        data_of(prepared, recipe, tmp_path, tiny_backbone)
    chosen = data_of(prepared, dataclasses.replace(recipe, tile="auto"), tmp_path, tiny_backbone)
    assert chosen.recipe.tiles is None

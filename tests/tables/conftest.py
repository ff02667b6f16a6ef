"""A setup that takes seconds: a network of two convolutions, handwritten digits, four mini-batches."""

import dataclasses

import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.demo.digits import CLASS_NAMES
from tf_fast_rcnn.tables.measuring import measure_tables
from tf_fast_rcnn.tables.proposals import ProposalStore
from tf_fast_rcnn.tables.trainings import Setup, base_recipe
from tf_fast_rcnn.training.settings import with_changes


@pytest.fixture(scope="session")
def setup_in(digits, tiny_backbone):
    """`setup_in(folder)`: a `Setup` that writes its results to the folder."""
    train, test = (frcnn.load_dataset(f"voc:{digits}@{split}", CLASS_NAMES) for split in ("train", "test"))
    small = {"network.stride": 8, "network.fc_units": (16, 12), "sampling.rois_per_batch": 32}
    recipe = with_changes(base_recipe("small-data", 4, 96), small)
    store = ProposalStore(train, progress=False)

    def setup(folder, **changes):
        whole = Setup(train, test, recipe, tiny_backbone, None, folder, "voc10", store, progress=False)
        return dataclasses.replace(whole, **changes)

    return setup


@pytest.fixture(scope="session")
def measured(setup_in, tmp_path_factory):
    """The `Setup` of a folder that contains table 6 for one seed."""
    setup = setup_in(tmp_path_factory.mktemp("tables") / "out")
    measure_tables(setup, ["multi-task"], 1)
    return setup

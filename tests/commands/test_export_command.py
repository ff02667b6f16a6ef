"""`tf-fast-rcnn export`."""

import json
import re

import pytest
import tensorflow as tf

from tf_fast_rcnn.commands import export
from tf_fast_rcnn.data.proposals import DenseBoxes, FileProposals, ProposalSettings
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.errors import InputError


def test_export_end_to_end(command, refused, tiny_run, tmp_path):
    out = tmp_path / "digits" / "1"
    options = ("--max-detections", 7, "--class-names-output", "--json", "-")
    done = command("export", tiny_run[0], "--out", out.parent, *options)
    assert done.code == 0, done.err
    # The model was trained with dense boxes, which every server can compute.
    names = ["serving_default", "regions", "predict_tensors", "detect_image_bytes"]
    assert json.loads(done.out) == {
        "saved_model": str(out),
        "signatures": names,
        "class_names": list("0123456789"),
    }
    signatures = tf.saved_model.load(str(out)).signatures
    assert sorted(signatures) == sorted(names)
    for name in ("serving_default", "detect_image_bytes"):
        assert signatures[name].structured_outputs["detection_boxes"].shape[1:] == [7, 4]
        assert signatures[name].structured_outputs["detection_class_names"].dtype == tf.string
    assert (out / "assets.extra" / "tf_serving_warmup_requests").is_file()
    assert "expected a new folder" in refused("export", tiny_run[0], "--out", out)


def test_metadata_describes_the_training(command, tiny_run, tmp_path):
    (tmp_path / "metrics.json").write_text('{"mean_ap": 0.25}')
    options = ("--metrics", tmp_path / "metrics.json", "--warm-up", 0, "--proposals", "none")
    assert command("export", tiny_run[0], "--out", tmp_path / "3", *options).code == 0
    assert not (tmp_path / "3" / "assets.extra").exists()
    training = json.loads((tmp_path / "3" / "assets" / "metadata.json").read_text())["training"]
    assert training["run"] == json.loads((tiny_run[0] / "run.json").read_text())
    assert training["validation"]["mean_ap"] == tiny_run[1].validation_map
    assert training["metrics"] == {"mean_ap": 0.25}


def test_metrics_that_are_not_json(refused, tiny_run, tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    line = refused("export", tiny_run[0], "--out", tmp_path / "1", "--metrics", tmp_path / "metrics.json")
    assert "metrics.json: found invalid JSON" in line


def test_the_summary_for_people(command, tiny_run, tmp_path):
    done = command("export", tiny_run[0], "--out", tmp_path / "1", "--roi-pooling", "native", "--proposals", "none")
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path}/1: SavedModel; signatures serving_default, regions, predict_tensors\n"


def test_a_folder_that_is_not_a_run(refused, tmp_path):
    assert "found no run.json" in refused("export", tmp_path, "--out", tmp_path / "1")


def test_limits_that_no_image_fits(refused, tiny_run, tmp_path):
    line = refused("export", tiny_run[0], "--out", tmp_path / "1", "--max-request-proposals", 10)
    assert re.match(r"max_proposals: found 10; expected at least \d+, as many as the graph computes ", line)
    assert "found '0'; expected a whole number from 1" in refused("export", "run", "--out", "1", "--max-side", 0)


GRID = DenseBoxes(((0.3, 0.4),), 0.5)
DENSE = ProposalSettings(dense=GRID, min_size=0.2)
SEARCH = ProposalSettings("quality", 500, min_size=0.1)
BOTH = ProposalSettings("quality", 500, GRID, min_size=0.1)
OPENCV = ProposalSettings("fast", implementation="opencv")
FILE = FileProposals("boxes.npz", "yxyx-relative", None, "0")


@pytest.mark.parametrize(
    ("trained", "method", "roi_pooling", "expected"),
    [
        (DENSE, None, None, DENSE),
        (SEARCH, None, None, None),
        (SEARCH, None, "native", SEARCH),
        (BOTH, None, "native", BOTH),
        (OPENCV, None, "native", None),
        (FILE, None, "native", None),
        (DENSE, "none", None, None),
        (SEARCH, "dense", None, ProposalSettings(None, 500, DEFAULT_DENSE_BOXES, 0.1)),
        (BOTH, "dense", None, ProposalSettings(None, 500, GRID, 0.1)),
        (FILE, "dense", None, ProposalSettings(dense=DEFAULT_DENSE_BOXES)),
        (BOTH, "selective-search", None, BOTH),
        (DENSE, "selective-search", None, ProposalSettings("fast", min_size=0.2)),
        (OPENCV, "selective-search", None, ProposalSettings("fast")),
        (FILE, "selective-search", "portable", ProposalSettings("fast")),
    ],
)
def test_the_graph_proposes_as_in_training_if_it_can(capsys, trained, method, roi_pooling, expected):
    assert export.graph_proposals(trained, method, roi_pooling) == expected
    note = "detect_image_bytes: the model was trained with other proposals than it computes"
    assert (note in capsys.readouterr().err) == (expected not in (None, trained))


@pytest.mark.parametrize(
    ("present", "out", "expected"),
    [
        ((), "cells", "cells/1"),
        (("cells/1", "cells/9", "cells/10", "cells/.partial-x", "cells/old-77"), "cells", "cells/11"),
        (("cells/00000041",), "cells", "cells/42"),
        ((), "cells/7", "cells/7"),
        (("cells/7",), "cells/007", "cells/007"),
    ],
)
def test_versions(tmp_path, present, out, expected):
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
    assert export.version_folder(tmp_path / out) == tmp_path / expected


def test_folders_that_hold_no_versions(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    with pytest.raises(InputError, match="file: found a file; expected a model's folder"):
        export.version_folder(tmp_path / "file")
    with pytest.raises(InputError, match="model: found a SavedModel; expected a model's folder"):
        export.version_folder(tmp_path / "model")

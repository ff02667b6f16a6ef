"""`tf-fast-rcnn tables`: bad options are refused, and good ones are passed on."""

import json

import pytest

from tf_fast_rcnn.tables import measuring
from tf_fast_rcnn.tables.definitions import TABLES
from tf_fast_rcnn.tables.measuring import result_path


def test_unknown_tables(refused, digits, tmp_path):
    line = refused("tables", "--data", f"voc:{digits}@train", "--out", tmp_path / "out", "--only", "svd", "table9")
    assert line.startswith("tables: found 'table9'; expected one of multi-task, layers, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "found '0'; expected a whole number from 1"),
        (["--recipe", "voc08"], "recipe: found 'voc08'; expected one of"),
        (["--protocol", "voc"], "invalid choice: 'voc'"),
    ],
)
def test_bad_options(refused, digits, tmp_path, options, message):
    assert message in refused("tables", "--data", f"voc:{digits}@train", "--out", tmp_path / "out", *options)


def test_results_of_other_options(command, refused, digits, tmp_path, monkeypatch):
    def train_detector(setup, name, seed):
        (setup.out / f"seed-{seed}" / name).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(measuring, "train_detector", train_detector)
    monkeypatch.setattr(measuring, "measure", lambda *arguments: {"mean_ap": 0.5, "fc_milliseconds": 1.0})
    given = ["tables", "--data", f"voc:{digits}@train", "--out", tmp_path / "out", "--only", "svd", "--seeds", "2"]
    done = command(*given, "--json", tmp_path / "tables.json")
    assert done.code == 0, done.err
    assert "| **as trained** | 50.0 ± 0.0 | 2 |" in done.out
    figures = json.loads((tmp_path / "tables.json").read_text())
    assert [row["mean_ap"] for row in figures["svd"]["rows"]] == [50, 50]
    assert result_path(tmp_path / "out", TABLES["svd"].rows[1].measurement, 1).exists()
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["train"], settings["test"]) == tuple(
        f"voc:{digits}@train[{part}]" for part in (":70%,seed=0", "70%:,seed=0")
    )
    assert settings["backbone"] == "efficientnet_lite0"
    assert "found results with another recipe" in refused(*given, "--steps", "7")

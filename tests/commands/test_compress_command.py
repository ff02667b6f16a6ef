"""`tf-fast-rcnn compress`."""

import dataclasses
import json

import numpy as np
import pytest

import tf_fast_rcnn as frcnn


@pytest.fixture(scope="module")
def small_run(tiny_run, tmp_path_factory):
    """The run with fc6 compressed to t = 6."""
    from tf_fast_rcnn import cli

    folder = tmp_path_factory.mktemp("compressed") / "small"
    assert cli.main(["compress", str(tiny_run[0]), "--fc6", "6", "--out", str(folder)]) == 0
    return folder


def test_the_run_says_what_was_compressed(small_run, tiny_run):
    before, after = (json.loads((folder / "run.json").read_text()) for folder in (tiny_run[0], small_run))
    compressed = after.pop("compressed")
    assert after == before
    assert compressed["run"] == str(tiny_run[0])
    assert compressed["layers"]["fc6"]["rank"] == 6
    assert sorted(path.name for path in small_run.iterdir()) == ["model.keras", "run.json"]


def test_the_model_is_that_of_python(small_run, tiny_run, digits):
    run, small = frcnn.load_run(tiny_run[0]), frcnn.load_run(small_run)
    expected = frcnn.compress(run.model, fc6=6)
    for mine, theirs in zip(small.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_every_command_takes_it(command, small_run, digits, tmp_path):
    assert command("evaluate", small_run, "--data", f"voc:{digits}@test", "--json", "-").code == 0
    image = digits / "JPEGImages" / "test_0001.jpg"
    assert command("detect", small_run, image, "--json", "-", "--score-threshold", 0.01).code == 0
    assert command("export", small_run, "--out", tmp_path / "1").code == 0


def test_it_is_tuned_further(small_run, prepared_digits, tiny_recipe, tiny_backbone, tmp_path):
    recipe = dataclasses.replace(tiny_recipe, steps=3)
    options = {"recipe": recipe, "backbone": tiny_backbone, "weights": str(small_run), "progress": False}
    frcnn.train(prepared_digits[0], tmp_path / "tuned", **options)
    tuned, start = (frcnn.load_run(folder).model for folder in (tmp_path / "tuned", small_run))
    assert [layer.name for layer in tuned.layers] == [layer.name for layer in start.layers]
    for name in ("fc6_v", "fc6_u", "class_logits"):
        mine, theirs = (model.get_layer(name).get_weights()[0] for model in (tuned, start))
        # After three steps the weights are still close to the compressed ones.
        assert 0 < np.abs(mine - theirs).max() < 0.2 * np.abs(theirs).max()


def test_energy_and_ranks(command, tiny_run, tmp_path):
    done = command("compress", tiny_run[0], "--energy", 0.5, "--rank", "box_regression=3", "--out", tmp_path / "small")
    assert done.code == 0, done.err
    assert "box_regression" in done.out
    assert f"next: tf-fast-rcnn evaluate {tmp_path}/small" in done.out
    names = [layer.name for layer in frcnn.load_run(tmp_path / "small").model.layers]
    assert {"fc6_v", "fc6_u", "box_regression_v", "box_regression"} <= set(names)


def test_search_on_a_data_set(command, tiny_run, digits, tmp_path):
    options = ("--max-loss", 100, "--data", f"voc:{digits}@test", "--out", tmp_path / "small", "--json", "-")
    done = command("compress", tiny_run[0], *options)
    assert done.code == 0, done.err
    assert "WARNING" not in done.err
    # If any loss is allowed, the smallest rank is the answer.
    assert [layer["rank"] for layer in json.loads(done.out)["layers"].values()] == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--fc6, --fc7, --energy, --rank: found none; expected one of them or --max-loss"),
        (("--fc6", 4, "--max-loss", 1, "--data", "voc:x@y"), "found --max-loss too"),
        (("--max-loss", 1), "--max-loss needs images to measure mAP on; pass --data SPEC"),
        (("--fc6", 4, "--data", "voc:x@y"), "--data: --data and --proposals are only used with --max-loss"),
        (("--fc6", 400), "fc6: found t = 400; expected a whole number from 1 to 16"),
        (("--fc7", 4), "fc7: found the fully connected layers fc6; expected two or more"),
        (("--rank", "fc6"), "argument --rank: found 'fc6'; expected LAYER=T"),
        (("--rank", "fc6=x"), "argument --rank: found 'x'; expected a whole number from 1"),
        (("--rank", "fc6=3", "--rank", "fc6=4"), "--rank: found fc6 twice"),
        (("--energy", 1), "found no layer that would become smaller"),
    ],
)
def test_bad_options(refused, tiny_run, tmp_path, options, message):
    assert message in refused("compress", tiny_run[0], *options, "--out", tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_compressed_layer_and_an_existing_folder_are_refused(refused, small_run, tmp_path):
    line = refused("compress", small_run, "--fc6", 3, "--out", tmp_path / "again")
    assert line.startswith("fc6: found a layer that is already compressed (t = 6)")
    assert "found an existing file or folder" in refused("compress", small_run, "--fc6", 3, "--out", small_run)

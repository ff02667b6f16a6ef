"""`tf-fast-rcnn browse`."""

import json

import numpy as np


def test_the_page_and_what_is_printed(command, digits, tmp_path):
    done = command("browse", f"voc:{digits}@train", "--out", tmp_path / "page", "--json", tmp_path / "facts.json")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts == json.loads((tmp_path / "page" / "findings.json").read_text())
    assert (facts["images"], len(facts["classes"])) == (8, 10)
    lines = done.out.splitlines()
    assert lines[0] == f"8 images, {facts['objects']} objects, 10 classes"
    assert lines[1] == f"recall of the proposals at IoU 0.5: {facts['recall']['at_iou_0.5']:.3f}"
    assert f"{facts['counts']['rare_classes']:6d}  rare classes" in lines
    assert len(lines) == 3 + np.count_nonzero(list(facts["counts"].values()))
    assert lines[-1] == f"open {tmp_path}/page/index.html"
    assert "images: 100%" in done.err


def test_leaked_images_of_a_union(command, digits, tmp_path):
    both = f"voc:{digits}@train+voc:{digits}@test"
    names = (digits / "ImageSets" / "Main" / "train.txt").read_text().splitlines()
    with open(digits / "ImageSets" / "Main" / "leaky.txt", "w") as split:
        split.write(f"{names[3]}\n")
    leaky = f"{both}+voc:{digits}@leaky"
    counts = []
    for number, spec in enumerate([both, leaky]):
        arguments = ("--out", tmp_path / str(number), "--no-proposals", "--json", "-")
        done = command("browse", spec, *arguments)
        assert done.code == 0, done.err
        facts = json.loads(done.out)
        assert facts["recall"] is None
        counts.append(facts["findings"]["identical_images"])
    assert counts[0] == []
    assert [finding["images"] for finding in counts[1]] == [[names[3], names[3]]]


def test_proposals_of_a_prepared_data_set_are_used(command, digits, tmp_path):
    assert command("prepare", f"voc:{digits}@test", "--out", tmp_path / "prepared").code == 0
    done = command("browse", f"prepared:{tmp_path / 'prepared'}", "--out", tmp_path / "page", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["recall"]["proposals_per_image"] > 100
    assert "proposals:" not in done.err, "not computed again"


def test_unreadable_images_are_named_where_they_are_skipped(command, refused, broken_digits, tmp_path):
    names = (broken_digits / "ImageSets" / "Main" / "train.txt").read_text().splitlines()
    (path,) = (broken_digits / "JPEGImages").glob(f"{names[2]}.*")
    path.write_bytes(path.read_bytes()[:3000])
    spec = f"voc:{broken_digits}@train"
    for number, options in enumerate([(), ("--no-proposals",)]):
        out = tmp_path / str(number)
        assert command("browse", spec, "--out", out, *options).code == 2
        assert not out.exists()
        done = command("browse", spec, "--out", out, "--skip-bad", *options)
        assert done.code == 0, done.err
        assert "     1  unreadable images" in done.out
        assert names[2] in (out / "index.html").read_text()
        assert names[2] in json.dumps(json.loads((out / "findings.json").read_text())["findings"]["unreadable_images"])


def test_an_existing_folder_is_refused_before_anything_is_read(refused, tmp_path):
    assert refused("browse", "voc:nowhere@train", "--out", tmp_path) == (
        f"{tmp_path}: found an existing file or folder; expected a new one; give another --out"
    )

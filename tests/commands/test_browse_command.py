"""`tf-fast-rcnn browse`."""

import json
import re
from pathlib import Path

import numpy as np

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli
from tf_fast_rcnn.browsing.findings import KINDS

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "browse.md").read_text()


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


def test_proposals_of_a_prepared_dataset_are_used(command, digits, tmp_path):
    assert command("prepare", f"voc:{digits}@test", "--out", tmp_path / "prepared").code == 0
    done = command("browse", f"prepared:{tmp_path / 'prepared'}", "--out", tmp_path / "page", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["recall"]["proposals_per_image"] > 100
    assert "proposals:" not in done.err, "not computed again"


def test_unreadable_images_are_named_when_they_are_skipped(command, refused, broken_digits, tmp_path):
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


def test_proposals_of_a_file(command, digits, tmp_path):
    """The file's proposals are the ground truth boxes, so each proposal finds one object."""
    dataset = frcnn.load_dataset(f"voc:{digits}@test")
    np.savez(tmp_path / "proposals.npz", **{record.image_id: record.boxes for record in dataset})
    done = command(
        "browse",
        f"voc:{digits}@test",
        "--proposals",
        tmp_path / "proposals.npz",
        "--out",
        tmp_path / "p",
        "--json",
        "-",
    )
    assert done.code == 0, done.err
    recall = json.loads(done.out)["recall"]
    assert recall["at_iou_0.5"] == 1.0
    most = max(len(record.boxes) for record in dataset)
    assert recall["proposals"][-1] == most
    assert recall["by_proposals"][0] == len(dataset) / sum(len(record.boxes) for record in dataset)


def test_no_proposals_and_proposals_is_refused(refused, tmp_path):
    line = refused("browse", "voc:x@y", "--out", tmp_path / "page", "--no-proposals", "--proposals", "dense")
    assert line == "--no-proposals: cannot be combined with --proposals dense; remove one of them"


def test_the_documentation_runs_and_names_every_kind_of_finding(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("voc_2007_trainval.mat").touch()
    for line in re.findall(r"^    tf-fast-rcnn (.*)$", DOCUMENTATION, flags=re.MULTILINE):
        assert cli._parser(line.split()).parse_args(line.split()).out == "page"
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION, flags=re.DOTALL)
    exec(code.replace("voc:cells@train", f"voc:{digits}@train"), {})
    assert "'rare_classes': " in capsys.readouterr().out
    assert re.findall(r"^\| `(\w+)` \|", DOCUMENTATION, flags=re.MULTILINE) == list(KINDS)


def test_an_existing_folder_is_refused_before_anything_is_read(refused, tmp_path):
    assert refused("browse", "voc:nowhere@train", "--out", tmp_path) == (
        f"{tmp_path}: found an existing file or folder; expected a new one; choose another --out"
    )

"""`tf-fast-rcnn formats`."""

import json

from tf_fast_rcnn.data.formats import FORMATS
from tf_fast_rcnn.data.specs import _READERS


def test_list(command):
    done = command("formats")
    assert done.code == 0
    assert {line.partition(":")[0] for line in done.out.splitlines()} == set(_READERS)
    assert json.loads(command("formats", "--json", "-").out) == FORMATS


def test_paths(command, refused, digits, tmp_path):
    done = command("formats", digits, tmp_path, "--json", tmp_path / "a.json")
    *found, last = done.out.splitlines()
    # Other tests add splits to the folder.
    assert {f"voc:{digits}@test", f"voc:{digits}@train"} <= set(found)
    assert all(line.startswith(f"voc:{digits}@") for line in found)
    assert last == f"{tmp_path}: not recognised; see docs/data.md"
    assert json.loads((tmp_path / "a.json").read_text())[str(tmp_path)] == []
    assert "no such file or folder" in refused("formats", tmp_path / "none")

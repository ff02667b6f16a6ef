"""Atomic writes of files and folders."""

import json

import pytest

from tf_fast_rcnn.files import new_folder, remove_partial_files, replacing, replacing_path, write_json, write_text


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("writer", [replacing, replacing_path])
def test_a_file_has_its_name_when_it_is_complete(tmp_path, writer):
    path = tmp_path / "new" / "model.weights.h5"
    for content in (b"first", b"second"):
        before = path.read_bytes() if path.exists() else None
        with writer(path) as target:
            assert (path.read_bytes() if path.exists() else None) == before
            if writer is replacing:
                target.write(content)
            else:
                assert target.name.endswith(".weights.h5")
                target.write_bytes(content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["new", "new/model.weights.h5"]


def interrupt_replacing(path):
    with replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def interrupt_replacing_path(path):
    with replacing_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt


def interrupt_new_folder(path):
    with new_folder(path) as folder:
        (folder / "part").touch()
        raise KeyboardInterrupt


@pytest.mark.parametrize("write_half", [interrupt_replacing, interrupt_replacing_path])
def test_after_an_error_the_file_is_what_it_was(tmp_path, write_half):
    write_text(tmp_path / "file", "è")
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == "è".encode()


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1]})
    assert (tmp_path / "a.json").read_text() == json.dumps({"x": [1]}, indent=2) + "\n"
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1]}


def test_a_folder_has_its_name_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "new" / "7") as folder:
        assert list(folder.iterdir()) == []
        (folder / "part").touch()
        visible = [path.name for path in (tmp_path / "new").iterdir() if not path.name.startswith(".")]
        assert visible == []
    assert names(tmp_path) == ["new", "new/7", "new/7/part"]


def test_after_an_error_there_is_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupt_new_folder(tmp_path / "7")
    assert names(tmp_path) == []


def test_what_a_kill_left_behind_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".partial-1-step.keras").touch()
    (tmp_path / "kept").touch()
    remove_partial_files(tmp_path)
    assert names(tmp_path) == ["checkpoints", "kept"]

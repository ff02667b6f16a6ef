"""Building the package: with a compiler, without one, from a source archive, in place."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

PROJECT = pathlib.Path(__file__).parent.parent
LIBRARIES = ["tf_fast_rcnn/_native_ops.tf2.21.so", "tf_fast_rcnn/_selective_search.so"]


@pytest.fixture
def sources(tmp_path):
    """A copy of the files tracked by git, since a build writes into the source folder."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    for name in ("tf_fast_rcnn", "custom_ops"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (folder / "README.md").write_text("tf_fast_rcnn\n")
    return folder


def build(what, sources, out, **environment):
    """Calls a hook of the build backend as pip does; returns its output and the file that it made."""
    command = [sys.executable, "-c", f"import setuptools.build_meta as b; b.build_{what}({str(out)!r})"]
    out.mkdir()
    ran = subprocess.run(
        command, cwd=sources, env=os.environ | environment, text=True, capture_output=True, check=True, timeout=500
    )
    (made,) = out.iterdir()
    return ran.stdout + ran.stderr, made


def test_built_for_the_tensorflow_that_it_runs_with():
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert "tensorflow==2.21.*" in pyproject["build-system"]["requires"]
    assert "tensorflow==2.21.*" in pyproject["project"]["dependencies"]


def test_source_archive_holds_the_ops(sources, tmp_path):
    _, archive = build("sdist", sources, tmp_path / "out")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    ops = {str(path.relative_to(sources)) for path in (sources / "custom_ops").rglob("*") if path.is_file()}
    assert ops
    assert ops | {"LICENSE", "setup.py", "tf_fast_rcnn/ops/roi_pooling.py"} <= names


def test_without_a_compiler_the_wheel_is_pure_and_says_why(sources, tmp_path):
    printed, wheel = build("wheel", sources, tmp_path / "out", CXX="/nonexistent/g++ -O1")
    for what in ("RoI pooling op", "selective search"):
        assert f"WITHOUT its native {what}: the C++ compiler '/nonexistent/g++' failed" in printed
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tf_fast_rcnn/ops/roi_pooling.py" in names
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.slow
def test_wheel_from_a_source_archive_holds_the_library(sources, tmp_path):
    _, archive = build("sdist", sources, tmp_path / "sdist")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    (
        unpacked / "tf_fast_rcnn/_native_ops.tf1.15.so"
    ).touch()  # left by an editable installation; must not get into the wheel
    _, wheel = build("wheel", unpacked, tmp_path / "out")
    # It does not use Python's ABI, but it is machine code.
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if name.endswith(".so")) == LIBRARIES
    assert not [name for name in names if name.startswith(("tests", "custom_ops"))]


@pytest.mark.slow
def test_editable_build_puts_the_library_beside_the_sources(sources, tmp_path):
    (sources / "tf_fast_rcnn/_native_ops.tf1.15.so").touch()
    build("editable", sources, tmp_path / "out")
    assert all((sources / library).exists() for library in LIBRARIES)

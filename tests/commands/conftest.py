"""Runs commands in this process."""

import os
import shutil
from typing import NamedTuple

import pytest

from tf_fast_rcnn import cli


class Finished(NamedTuple):
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys):
    """`command("detect", RUN, ...)` runs `tf-fast-rcnn detect RUN ...`."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Finished(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must fail as bad input does: exit code 2 and one line on standard error, which it returns."""

    def run(*arguments):
        finished = command(*arguments)
        assert finished.code == 2
        assert finished.out == ""
        (line,) = finished.err.splitlines()
        assert line.startswith("tf-fast-rcnn: error: ")
        return line.removeprefix("tf-fast-rcnn: error: ")

    return run


@pytest.fixture
def broken_digits(digits, tmp_path):
    """A copy of the dataset that a test may break."""
    return shutil.copytree(digits, tmp_path / "digits")


@pytest.fixture
def prepared_folders(prepared_digits):
    """The folders of the prepared training and test images."""
    return tuple(os.path.dirname(dataset.records.sources[0].paths[0]) for dataset in prepared_digits)

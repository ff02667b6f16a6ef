"""Selective search on images of any shape, under AddressSanitizer, UBSan and ThreadSanitizer."""

import os
import pathlib
import shlex
import subprocess

import pytest

CUSTOM_OPS = pathlib.Path(__file__).parents[2] / "custom_ops"
SOURCES = [
    CUSTOM_OPS / "test/selective_search_fuzz.cc",
    *sorted(set(CUSTOM_OPS.glob("cc/selective_search/*.cc")) - {CUSTOM_OPS / "cc/selective_search/c_api.cc"}),
]


def checksum(folder, *flags, rounds):
    program = folder / f"fuzz{len(list(folder.iterdir()))}"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-ffp-contract=off"]
    subprocess.run([*compiler, *flags, *SOURCES, "-lpthread", "-o", program], check=True)
    ran = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_random_images_under_sanitizers(tmp_path):
    """They leave out the loops for newer CPUs, which must return the same boxes."""
    expected = checksum(tmp_path, "-O3", "-fno-math-errno", rounds=40)
    stop = "-fno-sanitize-recover=all"
    assert checksum(tmp_path, "-O1", "-g", "-fsanitize=address,undefined", stop, rounds=40) == expected
    assert checksum(tmp_path, "-O1", "-g", "-fsanitize=thread", stop, rounds=40) == expected

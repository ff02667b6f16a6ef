"""The kernels alone, without TensorFlow, under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import pathlib
import shlex
import subprocess

import pytest

CUSTOM_OPS = pathlib.Path(__file__).parent.parent / "custom_ops"
KERNELS = [CUSTOM_OPS / f"cc/kernels/roi_pool_{name}.cc" for name in ("baseline", "avx2", "avx512", "dispatch")]


@pytest.mark.slow
def test_random_inputs_under_sanitizers(tmp_path):
    program = tmp_path / "roi_pool_fuzz"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-O1", "-g", "-ffp-contract=off"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [CUSTOM_OPS / "test/roi_pool_fuzz.cc", *KERNELS]
    subprocess.run([*compiler, *sanitizers, *sources, "-o", program], check=True)
    ran = subprocess.run([program, "1500"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all equal" in ran.stdout

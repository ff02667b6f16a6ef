"""How setup.py finds and calls CUDA's compiler, and what it does without one."""

import importlib.util
import pathlib
import struct

import pytest
import tensorflow as tf

from tf_fast_rcnn.ops import native

PROJECT = pathlib.Path(__file__).parent.parent

# A fake nvcc: lists the architectures it could compile for, prints its library path, and logs its calls to a file.
NVCC = """#!/bin/sh
folder=$(dirname "$0")
case "$*" in
  --list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_86\\ncompute_90\\ncompute_120\\n' ;;
  *--dryrun*) echo "#\\$ LIBRARIES=  \\"-L$folder/stubs\\" \\"-L$folder\\"" >&2 ;;
  *) echo "$*" >> "$folder/calls" ;;
esac
"""


@pytest.fixture
def setup_py(monkeypatch, tmp_path):
    """setup.py as a module, on a machine without CUDA."""
    for name in ("NVCC", "TF_FAST_RCNN_CUDA", "TF_FAST_RCNN_CUDA_ARCHITECTURES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(PROJECT)
    spec = importlib.util.spec_from_file_location("setup_py", PROJECT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CUDA_TOOLKITS", tmp_path / "toolkits")
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    return module


def write_nvcc(path, script=NVCC):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    (path.parent / "libcudart_static.a").touch()
    return str(path)


def test_nvcc_of_cuda_12_is_preferred_to_newer_ones_and_a_named_one_to_all(setup_py, tmp_path, monkeypatch):
    assert setup_py.find_nvcc() is None
    current = write_nvcc(tmp_path / "toolkits/cuda/bin/nvcc")
    assert setup_py.find_nvcc() == current
    on_path = write_nvcc(tmp_path / "path/nvcc")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert setup_py.find_nvcc() == on_path
    write_nvcc(tmp_path / "toolkits/cuda-12.9/bin/nvcc")
    write_nvcc(tmp_path / "toolkits/cuda-13.0/bin/nvcc")
    of_cuda_12 = write_nvcc(tmp_path / "toolkits/cuda-12.10/bin/nvcc")
    assert setup_py.find_nvcc() == of_cuda_12
    monkeypatch.setenv("NVCC", "/opt/nvcc")
    assert setup_py.find_nvcc() == "/opt/nvcc"


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (None, "nvcc was not found; set NVCC to its path"),
        ("#!/bin/sh\nexit 3\n", "returned non-zero exit status 3"),
        (NVCC.replace("*) echo", "*) exit 7; echo"), "returned non-zero exit status 7"),
        (NVCC.replace("-L$folder", "-L/nowhere"), "has no libcudart_static.a in /nowhere/stubs, /nowhere"),
        (NVCC.replace("compute_", "sm_"), "set TF_FAST_RCNN_CUDA_ARCHITECTURES"),
    ],
)
def test_without_a_compiler_that_works_the_op_is_built_for_cpus(setup_py, tmp_path, monkeypatch, capsys, script, word):
    if script is not None:
        monkeypatch.setenv("NVCC", write_nvcc(tmp_path / "nvcc", script))
    assert setup_py.compile_cuda(tmp_path / "objects") == []
    printed = capsys.readouterr().err
    assert "built WITHOUT its CUDA kernels" in printed
    assert word in printed


def test_an_nvcc_that_does_not_exist_is_told(setup_py, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NVCC", "/nonexistent/nvcc")
    assert setup_py.compile_cuda(tmp_path) == []
    assert "/nonexistent/nvcc" in capsys.readouterr().err


def test_cuda_can_be_left_out(setup_py, tmp_path, monkeypatch):
    monkeypatch.setenv("NVCC", write_nvcc(tmp_path / "nvcc"))
    monkeypatch.setenv("TF_FAST_RCNN_CUDA", "0")
    assert setup_py.compile_cuda(tmp_path / "objects") == []
    assert not (tmp_path / "calls").exists()


def test_kernels_are_compiled_for_what_nvcc_knows_and_linked_before_tensorflow(setup_py, tmp_path, monkeypatch):
    monkeypatch.setenv("NVCC", write_nvcc(tmp_path / "nvcc"))
    inputs = setup_py.compile_cuda(tmp_path / "objects")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(list(PROJECT.glob("custom_ops/cc/kernels/roi_pool/cuda/*.cu"))) == 2
    for call in calls:
        targets = [word.removeprefix("-gencode=arch=") for word in call.split() if word.startswith("-gencode")]
        assert targets == [
            "compute_75,code=sm_75",
            "compute_80,code=sm_80",
            "compute_90,code=sm_90",
            "compute_90,code=compute_90",
        ]
        assert call.split()[-1] in inputs
    assert "-DTF_FAST_RCNN_OLDEST_CUDA_ARCHITECTURE=75" in inputs
    assert str(tmp_path / "libcudart_static.a") in inputs
    assert "-Wl,--exclude-libs,ALL" in inputs
    assert setup_py.CUDA_OP in inputs
    assert setup_py.CUDA_OP not in setup_py.SOURCES


def test_architectures_may_be_chosen(setup_py, tmp_path, monkeypatch, capsys):
    nvcc = write_nvcc(tmp_path / "nvcc")
    monkeypatch.setenv("NVCC", nvcc)
    monkeypatch.setenv("TF_FAST_RCNN_CUDA_ARCHITECTURES", "120 86")
    assert setup_py.cuda_architectures(nvcc) == [86, 120]
    monkeypatch.setenv("TF_FAST_RCNN_CUDA_ARCHITECTURES", "8.6;12.0")
    assert setup_py.compile_cuda(tmp_path) == []
    assert "TF_FAST_RCNN_CUDA_ARCHITECTURES is '8.6;12.0'; expected numbers, e.g. '80 90'" in capsys.readouterr().err


def device_code(library):
    """{(kind, architecture)} of the GPU code in a file; kind is "PTX" or "machine code".

    nvcc's format: a header with a magic number, a version, the header's size and the size of what follows; then for
    each piece a header with its kind, a version, the header's size, the size of the piece, and (at byte 28) the
    architecture.
    """
    data, magic, found = library.read_bytes(), struct.pack("<I", 0xBA55ED50), set()
    start = data.find(magic)
    while start >= 0:
        header_size, size = struct.unpack_from("<HQ", data, start + 6)
        piece, end = start + header_size, start + header_size + size
        while piece < end:
            kind, piece_header, piece_size = struct.unpack_from("<HxxIQ", data, piece)
            (architecture,) = struct.unpack_from("<I", data, piece + 28)
            found.add(({1: "PTX", 2: "machine code"}[kind], architecture))
            piece += piece_header + piece_size
        start = data.find(magic, end)
    return found


def test_installed_library_has_code_for_the_architectures_that_it_tells():
    library = native.find_library(native._PACKAGE, tf.__version__)
    versions, code = native.cuda_versions(library), device_code(library)
    if versions is None:
        assert code == set()
        return
    numbers = sorted(number for kind, number in code if kind == "machine code")
    assert numbers[0] == versions.oldest_architecture
    assert code == {("machine code", number) for number in numbers} | {("PTX", numbers[-1])}

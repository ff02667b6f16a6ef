"""Reads the folders that `prepare` writes, without loading the images into memory.

    manifest.json                     format version, SPEC, class names, proposal settings, statistics, and each shard's
                                      checksum and record lengths
    shard-NUMBER-KEY.tfrecord         one tf.train.Example per image; KEY is a hash of everything they depend on

docs/prepared_data.md describes both. Everything is read through tf.io, so a folder may be on any file system that
TensorFlow supports. TensorFlow is imported only when something is read, because the processes that compute proposals do
not need it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.proposals.settings import settings_from_json
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

FORMAT = "tf-fast-rcnn prepared data set"
VERSION = 2
MANIFEST = "manifest.json"

_PARALLEL_REQUESTS = 16


def read_prepared(directory: StrPath) -> DetectionDataset:
    """Reads a folder that `prepare` wrote, as a `DetectionDataset`.

    Args:
        directory: the folder, on any file system that TensorFlow supports, e.g. "gs://bucket/cells".

    Raises:
        InputError: if the manifest is missing, invalid or of another version, or a shard is missing or has a different
            size.
    """
    directory = str(directory)
    manifest = read_manifest(directory)
    try:
        dataset = dataset_of(directory, manifest)
        expected = {shard_path(directory, shard): shard["bytes"] for shard in manifest["shards"]}
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _broken(directory, f"{type(error).__name__}: {error}") from None
    _check_sizes(expected)
    return dataset


def verify_prepared(directory: StrPath) -> None:
    """Reads a whole prepared folder and verifies its checksums, e.g. after copying it.

    Args:
        directory: a folder that `prepare` wrote.

    Raises:
        InputError: as in `read_prepared`, and for the first shard with a wrong checksum.

    Example:
        >>> verify_prepared("/mnt/copy/cells-prepared")          # doctest: +SKIP
    """
    import tensorflow as tf

    read_prepared(directory)
    for shard in read_manifest(directory)["shards"]:
        path = shard_path(str(directory), shard)
        with tf.io.gfile.GFile(path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != shard["sha256"]:
            raise InputError(
                f"{path}: found SHA-256 {found[:16]}...; expected {shard['sha256'][:16]}... as in the manifest; "
                "copy it again, or run `prepare` again"
            )


def dataset_of(directory: str, manifest: dict[str, Any], name: str | None = None) -> DetectionDataset:
    """The `DetectionDataset` of a manifest."""
    from tf_fast_rcnn.data.prepared.examples import PreparedRecords

    shards, class_names = manifest["shards"], manifest["class_names"]
    if not all(isinstance(name, str) for name in [*class_names]):
        raise TypeError("class names that are not text")
    records = PreparedRecords(
        [shard_path(directory, shard) for shard in shards],
        [shard["record_bytes"] for shard in shards],
        len(class_names),
        [size for shard in shards for size in shard["image_sizes"]],
    )
    proposals = settings_from_json(manifest["settings"])
    name = name or f"prepared:{directory}"
    return DetectionDataset(name, class_names, records, manifest["mended"], proposals)


def shard_path(directory: str, shard: Mapping[str, Any]) -> str:
    """The path of a shard in the manifest; absolute if local, because the current folder may change."""
    directory = str(directory)
    if "://" not in directory:
        directory = os.path.abspath(directory)
    return f"{directory.rstrip('/')}/{shard['file']}"


def read_manifest(directory: StrPath) -> dict[str, Any]:
    """Reads the manifest of a prepared folder.

    Raises:
        InputError: if it is missing, invalid, modified, or of another version.
    """
    import tensorflow as tf

    path = _manifest_path(directory)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            manifest = json.loads(file.read())
    except tf.errors.NotFoundError:
        raise InputError(
            f"{directory}: found no {MANIFEST}; expected a folder that `prepare` has finished; run `prepare` again"
        ) from None
    except tf.errors.OpError as error:
        raise InputError(f"{path}: cannot read the file ({error.message}); expected a manifest of `prepare`") from None
    except (ValueError, RecursionError) as error:
        raise _broken(directory, f"invalid JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _broken(directory, "another kind of file")
    if manifest.get("version") != VERSION:
        raise _broken(directory, f"version {manifest.get('version')}")
    if manifest.get("checksum") != manifest_checksum(manifest):
        raise _broken(directory, "content that does not match its checksum")
    return manifest


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its checksum, as JSON with sorted keys and no spaces."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest_path(directory):
    return f"{str(directory).rstrip('/')}/{MANIFEST}"


def _broken(directory, found):
    return InputError(
        f"{_manifest_path(directory)}: found {found}; expected a prepared data set of version {VERSION}; "
        "remove the folder and run `prepare` again"
    )


def _check_sizes(expected):
    """Compares the sizes of files with the expected ones, `{path: bytes}`."""
    import tensorflow as tf

    def size(path):
        try:
            return tf.io.gfile.stat(path).length
        except tf.errors.OpError:
            return None

    # In parallel, because each may be a request to a server.
    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        sizes = pool.map(size, expected)
    for (path, wanted), found in zip(expected.items(), sizes, strict=True):
        if found != wanted:
            problem = "no such file" if found is None else f"found {found} bytes"
            raise InputError(
                f"{path}: {problem}; expected {wanted} bytes according to the manifest; run `prepare` again"
            )

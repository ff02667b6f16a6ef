"""Prepared data sets: the folder that `prepare` writes, read without its images in memory.

    manifest.json                     format version, SPEC, class names, proposal settings, statistics, and for each
                                      shard its checksum and the length of each record
    shard-NUMBER-KEY.tfrecord         tf.train.Examples, one an image; KEY is a hash of all that they depend on

docs/prepared_data.md describes both. Everything is read through tf.io, so that a folder may be on any file system of
TensorFlow. TensorFlow is imported only when something is read: the processes that compute proposals do without.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.proposals.settings import settings_from_json
from tf_fast_rcnn.data.records import DetectionDataset
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

FORMAT = "tf-fast-rcnn prepared data set"
VERSION = 2
MANIFEST = "manifest.json"

_PARALLEL_REQUESTS = 16


def read_prepared(directory: StrPath) -> DetectionDataset:
    """Reads the folder that `prepare` wrote, as `DetectionDataset`.

    Args:
        directory: the folder, on any file system of TensorFlow ("gs://bucket/cells").

    Raises:
        InputError: if its manifest is missing, broken or of another version, or a shard is missing or of another size.
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
    """Reads all of a prepared folder and compares it with the checksums of its manifest: after copying it, say.

    Raises:
        InputError: as `read_prepared`, and for the first shard with another checksum.

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
                f"{path}: found SHA-256 {found[:16]}...; expected {shard['sha256'][:16]}..., as the manifest says; "
                "copy it again, or run `prepare` again"
            )


def dataset_of(directory: str, manifest: dict[str, Any], name: str | None = None) -> DetectionDataset:
    """The `DetectionDataset` of a manifest."""
    from tf_fast_rcnn.data.prepared.examples import PreparedRecords

    shards, class_names = manifest["shards"], manifest["class_names"]
    if not all(isinstance(name, str) for name in [*class_names]):
        raise TypeError("class names that are no text")
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
    """Where a shard of the manifest is; absolute on the local file system, whose current folder may change."""
    directory = str(directory)
    if "://" not in directory:
        directory = os.path.abspath(directory)
    return f"{directory.rstrip('/')}/{shard['file']}"


def read_manifest(directory: StrPath) -> dict[str, Any]:
    """The content of a prepared folder's manifest.

    Raises:
        InputError: if there is none, or it is broken, was changed, or is of another version.
    """
    import tensorflow as tf

    path = _manifest_path(directory)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            manifest = json.loads(file.read())
    except tf.errors.NotFoundError:
        raise InputError(
            f"{directory}: found no {MANIFEST}; expected a folder that `prepare` finished; run it again"
        ) from None
    except tf.errors.OpError as error:
        raise InputError(f"{path}: found it unreadable ({error.message}); expected a manifest of `prepare`") from None
    except (ValueError, RecursionError) as error:
        raise _broken(directory, f"broken JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _broken(directory, "another kind of file")
    if manifest.get("version") != VERSION:
        raise _broken(directory, f"version {manifest.get('version')}")
    if manifest.get("checksum") != manifest_checksum(manifest):
        raise _broken(directory, "content that does not fit its checksum")
    return manifest


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own checksum, as JSON with sorted keys and no blanks."""
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
    """Compares the sizes of files with those that are expected: `{path: bytes}`."""
    import tensorflow as tf

    def size(path):
        try:
            return tf.io.gfile.stat(path).length
        except tf.errors.OpError:
            return None

    # Each may be a request to a server.
    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        sizes = pool.map(size, expected)
    for (path, wanted), found in zip(expected.items(), sizes, strict=True):
        if found != wanted:
            what = "no such file" if found is None else f"{found} bytes"
            raise InputError(
                f"{path}: found {what}; expected {wanted} bytes, as the manifest says; run `prepare` again"
            )

"""`Predictor`: one interface to a Keras model, a RUN, an exported model or a model server."""

import collections
import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard, overload

import keras
import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.image_files import images_in
from tf_fast_rcnn.data.images import encode_png, read_encoded
from tf_fast_rcnn.data.prepared.write import cached_proposals
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.detect import Image, Proposals, check_proposals, default_proposals, image_and_proposals
from tf_fast_rcnn.inference.servers import GrpcSource, RestSource
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.inference.sources import KerasSource, SavedModelSource, Source, TFLiteSource, run_source

# Threads that read images and compute proposals while the network runs.
_READERS = 2


class Predictor:
    """A detector with its class names, proposals and settings. `Predictor.load` opens one.

    Args:
        model: a Keras model that `fast_rcnn` returned, or a `Source`.
        class_names: names of the classes 1..K; None if they are not needed.
        proposals: `ProposalSettings`, ideally those of training, or `FileProposals`; None for selective search plus
            dense boxes of common sizes.
        settings: `DetectionSettings`; None for the defaults.

    Attributes:
        name: name of the source in messages and reports.
        class_names: names of the classes 1..K, a tuple; None if the source does not report them (servers).
        proposals: how object proposals are computed; None if the source does not report this.
        settings: `DetectionSettings`; None if the source does not report them.
        description: how the detector was made, as far as known: a dict of JSON types.

    Raises:
        InputError: if the number of class names differs from the model's number of classes.

    Example:
        >>> predictor = Predictor.load("runs/cells", score_threshold=0.3)                   # doctest: +SKIP
        >>> found = predictor.detect("cell.jpg")                                            # doctest: +SKIP
        >>> found[0].class_name, found[0].score, found[0].box                               # doctest: +SKIP
        ('WBC', 0.98, array([0.12, 0.4 , 0.31, 0.6 ], dtype=float32))
        >>> found.draw(min_score=0.5).save("drawn.png")                                     # doctest: +SKIP
    """

    def __init__(
        self,
        model: keras.Model | Source,
        *,
        class_names: Sequence[str] | None = None,
        proposals: ProposalSettings | FileProposals | None = None,
        settings: DetectionSettings | None = None,
    ) -> None:
        if isinstance(model, Source):
            source = model if settings is None else model.with_settings(settings)
        else:
            source = KerasSource(model, class_names, proposals, settings)
        self._source = source
        self.name: str = source.name
        self.class_names: tuple[str, ...] | None = _chosen_names(source, class_names)
        self.proposals: ProposalSettings | FileProposals | None = proposals or source.proposals
        self.settings: DetectionSettings | None = source.settings
        self.description: dict[str, Any] = source.description

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        proposals: ProposalSettings | FileProposals | None = None,
        **settings: Any,
    ) -> "Predictor":
        """Opens a trained or exported detector, or a model on a server.

        Args:
            source: a RUN folder of `train`; a SavedModel of `export`, or the folder of its versions (the latest is
                used); a `.tflite` file; `grpc://HOST:PORT/NAME`; or `http://HOST:PORT/v1/models/NAME`.
            class_names: names of the classes 1..K, for a source that does not report them, such as a server.
            proposals: proposals to use instead of those of training.
            settings: fields of `DetectionSettings` to change. Only a RUN accepts them; exported models and servers use
                the settings of their export.

        Returns:
            `Predictor`.

        Raises:
            InputError: if the source is none of these or cannot be read, if it cannot change its settings, and for a
                server if the packages of the extra "serving" are not installed.

        Example:
            >>> Predictor.load("grpc://localhost:8500/cells", class_names=["RBC", "WBC"])       # doctest: +SKIP
            <Predictor grpc://localhost:8500/cells: RBC, WBC>
        """
        predictor = cls(_open_source(source), class_names=class_names, proposals=proposals)
        return predictor.with_settings(**settings) if settings else predictor

    @property
    def adjustable(self) -> bool:
        """Whether `with_settings` works. Exported models and servers keep the settings of their export."""
        return self._source.adjustable

    @property
    def num_classes(self) -> int | None:
        """K, the number of classes without the background; None if the source does not report it."""
        return self._source.num_classes if self.class_names is None else len(self.class_names)

    @property
    def takes_proposals(self) -> bool:
        """Whether object proposals are needed; false if the detections were read from files."""
        return self._source.takes_proposals

    @property
    def class_map(self) -> Mapping[str, str] | None:
        """How the classes of the training data were renamed or merged (see `with_classes`); None if they were not."""
        return self._source.class_map

    def with_settings(self, **changes: Any) -> "Predictor":
        """The same detector with changed fields of `DetectionSettings`.

        Raises:
            InputError: if a value is out of range, or the detector is not `adjustable`.

        Example:
            >>> predictor.with_settings(score_threshold=0.01, max_detections=300)               # doctest: +SKIP
        """
        settings = dataclasses.replace(self.settings or DetectionSettings(), **changes)
        other = copy.copy(self)
        other._source = self._source.with_settings(settings)
        other.settings = settings
        return other

    @overload
    def detect(self, images: np.ndarray, proposals: Proposals | None = None) -> Detections: ...

    @overload
    def detect(
        self,
        images: DetectionDataset | Sequence[Image],
        proposals: Proposals | None = None,
        *,
        batch_size: int = 1,
        progress: bool = True,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
    ) -> list[Detections]: ...

    @overload
    def detect(
        self,
        images: str | Path,
        proposals: Proposals | None = None,
        *,
        batch_size: int = 1,
        progress: bool = True,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
    ) -> Any: ...  # `Detections` for a file, a list of them for a folder

    def detect(
        self,
        images: Image | DetectionDataset | Iterable[Image],
        proposals: Proposals | None = None,
        *,
        batch_size: int = 1,
        progress: bool = True,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
    ) -> Detections | list[Detections]:
        """Finds the objects in one image or in many.

        Args:
            images: an image, uint8 `[H, W, 3]` RGB or the path of a file (its EXIF orientation is applied); or several
                of these, a folder of image files, or a `DetectionDataset`.
            proposals: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image, for one image; a sequence of
                such arrays for several images; `ProposalSettings` or `FileProposals` for any number of images. None for
                those of the predictor. A dataset that has proposals uses its own.
            batch_size: number of images that the network runs on at a time.
            progress: whether to show a progress bar on standard error, for several images.
            cache_dir, workers: for a dataset without proposals, see `cached_proposals`.

        Returns:
            `Detections` for one image; a list of them for several, one per image in order.

        Raises:
            InputError: if an image cannot be read, if the proposals are not valid boxes or do not have one entry per
                image, and if a server does not answer.

        Example:
            >>> for found in predictor.detect("photos", batch_size=4):                          # doctest: +SKIP
            ...     print(len(found), found.names)
        """
        if _is_one(images):
            return self._detect_batch([self._read(images, proposals)])[0]
        options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
        return list(self.detect_each(images, proposals, cache_dir=cache_dir, workers=workers, **options))

    def detect_each(
        self,
        images: DetectionDataset | str | Path | Iterable[Image],
        proposals: Proposals | None = None,
        *,
        batch_size: int = 1,
        progress: bool = True,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
    ) -> Iterator[Detections]:
        """Like `detect` for several images, but yields the `Detections` one at a time, as soon as they are computed.

        While the network runs, the next images are read and their proposals computed. Of an iterator, such as the
        frames of a video, only a few images are in memory at any time.

        Example:
            >>> frames = (image for _, _, image in frcnn.read_video("street.mp4"))                # doctest: +SKIP
            >>> for found in predictor.detect_each(frames):                                     # doctest: +SKIP
            ...     print(found.names)
        """
        if isinstance(images, DetectionDataset):
            options: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
            dataset = self.with_proposals(images, _for_all(proposals), **options)
            return self._detect_dataset(dataset, batch_size, progress)
        images = images_in(images) if isinstance(images, (str, Path)) else images
        count = len(images) if isinstance(images, Sized) else None
        read = (functools.partial(self._read, *pair) for pair in _with_proposals(images, proposals))
        return self._detect_read(read, count, batch_size, progress)

    def classify_regions(self, image: Image, regions: np.ndarray | Sequence) -> np.ndarray:
        """Classifies your own regions as they are: without box regression or non-maximum suppression.

        Args:
            image: as in `detect`.
            regions: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.

        Returns:
            Class probabilities, float32 `[R, K + 1]`, one row per region in the same order; column 0 is the background.

        Raises:
            InputError: if the image cannot be read, the regions are not valid boxes, or the source is a TF Lite file,
                which cannot classify regions.
        """
        image, regions, _ = self._read(image, check_proposals(regions))
        return self._source.classify_regions(image, regions)

    def with_proposals(
        self,
        dataset: DetectionDataset,
        proposals: ProposalSettings | FileProposals | None = None,
        *,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        progress: bool = True,
    ) -> DetectionDataset:
        """The dataset with object proposals: its own if it has any, otherwise computed ones, which are cached."""
        if dataset.proposals is not None or not self.takes_proposals:
            return dataset
        return cached_proposals(
            dataset, proposals or self.chosen_proposals, cache_dir=cache_dir, workers=workers, progress=progress
        )

    @property
    def chosen_proposals(self) -> ProposalSettings | FileProposals:
        """`proposals`, or the default ones if that is None."""
        return self.proposals or default_proposals()

    def __repr__(self) -> str:
        return f"<Predictor {self.name}: {', '.join(self.class_names or ['unknown classes'])}>"

    def _detect_dataset(self, dataset, batch_size, progress):
        found = self._source.detect_dataset(dataset, batch_size, progress)
        names = self.class_names or dataset.class_names
        if found is None:
            read = (functools.partial(self._read_record, dataset, index) for index in range(len(dataset)))
            found = self._detect_read(read, len(dataset), batch_size, progress)
        for index, each in enumerate(found):
            image = functools.partial(_image_of, dataset, index)
            yield dataclasses.replace(each, class_names=each.class_names or names, image=image)

    def _detect_read(self, read: Iterable[Callable], count: int | None, batch_size: int, progress: bool):
        """Runs detection in batches. Each element of `read` is a function that reads one image; `count` is how many
        there are, if that is known."""
        # No progress bar for a single image.
        bar = tqdm(total=count, desc="detect", unit="image", delay=2, disable=not progress or count == 1)
        with bar, ThreadPoolExecutor(_READERS) as readers:
            waiting: collections.deque = collections.deque()
            rest = iter(read)

            def read_ahead(number):
                waiting.extend(readers.submit(each) for each in itertools.islice(rest, number))

            read_ahead(batch_size + _READERS)
            while waiting:
                batch = [waiting.popleft().result() for _ in range(min(batch_size, len(waiting)))]
                read_ahead(len(batch))
                found = self._detect_batch(batch)
                bar.update(len(found))
                yield from found

    def _detect_batch(self, batch: list[tuple]) -> list[Detections]:
        """The `Detections` of a batch of images, each as returned by `_read`."""
        images, proposals, origins = zip(*batch, strict=True)
        found = self._source.detect(images, proposals)
        return [
            dataclasses.replace(each, class_names=each.class_names or self.class_names, image=origin)
            for each, origin in zip(found, origins, strict=True)
        ]

    def _read(self, image: Image, proposals: Proposals | None) -> tuple:
        """The image in the form that the source takes, its proposals float32 `[R, 4]`, and `Detections.image`."""
        pixels, rows = image_and_proposals(image, self.chosen_proposals if proposals is None else proposals)
        if not self._source.encoded:
            return pixels, rows, image
        return (encode_png(pixels) if isinstance(image, np.ndarray) else read_encoded(image)), rows, image

    def _read_record(self, dataset: DetectionDataset, index: int) -> tuple:
        record: ImageRecord = dataset[index]
        image = record.encoded_image() if self._source.encoded else record.image()
        return image, record.proposals(), None


def _open_source(source: str | Path) -> Source:
    scheme = str(source).partition(":")[0]
    if scheme == "grpc":
        return GrpcSource(str(source))
    if scheme in ("http", "https"):
        return RestSource(str(source))
    folder = Path(source)
    if folder.suffix == ".tflite":
        return TFLiteSource(folder)
    if (folder / "saved_model.pb").is_file():
        return SavedModelSource(folder)
    versions = [path.parent for path in folder.glob("*/saved_model.pb") if path.parent.name.isdecimal()]
    if versions:
        return SavedModelSource(max(versions, key=lambda version: int(version.name)))
    return run_source(folder)


def _chosen_names(source: Source, class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if class_names is None:
        return source.class_names
    if source.class_names is not None and len(class_names) != len(source.class_names):
        raise InputError(
            f"class_names: found {len(class_names)}; expected the {len(source.class_names)} of {source.name}; pass one "
            "name per class"
        )
    return tuple(class_names)


def _is_one(images: Any) -> TypeGuard[Image]:
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, (str, Path)) and not Path(images).is_dir()


def _with_proposals(images: Iterable[Image], proposals: Any) -> Iterator[tuple[Image, Any]]:
    """Each image with its proposals, or with those for all.

    Raises:
        InputError: if there are not as many proposals as images; at once if both numbers are known.
    """
    if proposals is None or isinstance(proposals, (ProposalSettings, FileProposals)):
        return zip(images, itertools.repeat(proposals))
    if isinstance(images, Sized) and len(proposals) != len(images):
        raise _wrong_number(len(proposals), len(images))
    return _pairs(images, proposals)


def _pairs(images, proposals):
    number = 0
    for number, image in enumerate(images, start=1):
        if number > len(proposals):
            raise _wrong_number(len(proposals), "more")
        yield image, proposals[number - 1]
    if number < len(proposals):
        raise _wrong_number(len(proposals), number)


def _wrong_number(entries, images):
    return InputError(
        f"proposals: found {entries} entries for {images} images; expected one per image; for an image without "
        "proposals, pass an array of shape [0, 4]"
    )


def _for_all(proposals: Any) -> ProposalSettings | FileProposals | None:
    if proposals is None or isinstance(proposals, (ProposalSettings, FileProposals)):
        return proposals
    raise InputError(
        "proposals: found arrays for a dataset; expected ProposalSettings or FileProposals; set the proposals of the "
        "records instead, or pass a list of images"
    )


def _image_of(dataset: DetectionDataset, index: int) -> np.ndarray:
    return dataset[index].image()

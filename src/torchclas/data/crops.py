"""Images that are read, decoded and brought to a network's size once, for all networks that take them so.

They are kept on the disk, and not shared by networks that run side by side: how many fit in memory depends on the
machine and on the engine (the weights of the whole zoo are over 40 GB, and engines make copies of them), and whatever
does not fit would read everything again. One after the other, each network has memory, threads and device to itself, as
if it were alone, and one that fails takes no other along. A crop of 224 × 224 pixels is 150 kB as uint8, ImageNet's
50,000 are 7.5 GB, hardly more than their JPEG files; normalised to float32 they would be four times that, and would
differ between networks that normalise by other figures.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from torchclas.atomic import disk_is_full, need_space
from torchclas.catalog import Preset
from torchclas.data.datasets import Indices, LabelledImages, entries
from torchclas.data.decode import ImageLike, decode
from torchclas.data.loader import Batch, load
from torchclas.data.preprocess import Preprocess
from torchclas.errors import ImageError, OutputError

BATCH = 32  # images between two reports of progress
RESERVE = 2**30  # bytes of the disk that are left to others


def fitting(preset: Preset) -> Preset:
    """What of a preset decides the pixels before they are normalised: equal for presets that can share crops."""
    if preset.fit == "pad":  # with bars of the mean colour
        return replace(preset, std=(1.0, 1.0, 1.0))
    return replace(preset, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Crops:
    """The images of a data set as `Preprocess.fit` makes them: uint8 RGB [height, width, 3] each; labelled images.

    The file that holds them has no name: it is gone when this is closed, and also when the process is killed. What
    cannot be read is an error here as it is there. Threads may read at once.

    Raises:
        OutputError: `folder` cannot be written, or its disk is full.
    """

    def __init__(
        self,
        images: LabelledImages,
        preprocess: Preprocess,
        folder: Path,
        *,
        workers: int,
        advance: Callable[[int], object] = lambda images: None,
    ) -> None:
        self.images = images
        self.fitting = fitting(preprocess.preset)
        height, width = preprocess.preset.size
        self._bytes = height * width * 3
        self._places = np.full(len(images), -1, np.int64)
        self._errors: dict[int, str] = {}
        self._map: mmap.mmap | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            need_space(folder / "crops", len(images) * self._bytes + RESERVE)
            fitter = _Fitter(preprocess.preset, preprocess.max_pixels)
            self._write(load(entries(images), fitter, batch_size=BATCH, workers=workers), advance)
            if len(self._errors) < len(images):
                self._file.flush()
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and disk_is_full(error, folder):
                raise OutputError(f"{folder}: the disk is full: free some space or choose another place") from error
            raise

    def _write(self, batches: Iterator[Batch], advance: Callable[[int], object]) -> None:
        # By `write`, not through the map: on a full disk that is an error, and not a signal that kills the process.
        index = kept = 0
        for batch in batches:
            for _, result in batch.rows(list(batch.images)):
                if isinstance(result, ImageError):
                    self._errors[index] = str(result)
                else:
                    self._places[index] = kept
                    self._file.write(np.ascontiguousarray(result).data)
                    kept += 1
                index += 1
            advance(len(batch.sources))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Those of the data set."""
        return self.images.classes

    @property
    def labels(self) -> Indices:
        """Those of the data set, [N] or [N, classes]."""
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """What the data set calls it."""
        return self.images.name(index)

    def key(self, index: int) -> str:
        """What the data set calls it."""
        return self.images.key(index)

    def read(self, index: int) -> bytes:
        """Return the pixels of a crop, row by row; raises ImageError with the reason alone."""
        if (error := self._errors.get(index)) is not None:
            raise ImageError(error)
        assert self._map is not None
        start = int(self._places[index]) * self._bytes
        return self._map[start : start + self._bytes]

    def batches(self, preprocess: Preprocess, *, batch_size: int, workers: int) -> Iterator[Batch]:
        """What `load` gives for the images of the data set and `preprocess`, whose preset has the same `fitting`."""
        if fitting(preprocess.preset) != self.fitting:
            raise ValueError(f"the crops are for {self.fitting}, not for {preprocess.preset}")
        normalizer = _Normalizer(preprocess.preset, preprocess.max_pixels, preprocess.channels)
        return load(entries(self), normalizer, batch_size=batch_size, workers=workers)

    def close(self) -> None:
        """Give the disk its room back."""
        if self._map is not None:
            self._map.close()
        self._file.close()

    def __enter__(self) -> Crops:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Fitter(Preprocess):
    """The first half of an evaluation transform."""

    def array(self, image: ImageLike) -> npt.NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return uint8 [height, width, 3]."""
        return self.fit(decode(image, max_pixels=self.max_pixels))


class _Normalizer(Preprocess):
    """The second half, of the bytes that are left of the first."""

    def array(self, image: ImageLike) -> npt.NDArray[np.float32]:
        """Return float32 [channels, height, width]."""
        assert isinstance(image, bytes)
        return self.normalize(np.frombuffer(image, np.uint8).reshape(*self.preset.size, 3))

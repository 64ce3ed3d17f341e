"""Labelled images for LeNet: the digits shipped with the package, or MNIST-style IDX files from a folder.

Either way the result is a `Digits`: images of one channel and 28x28 pixels, float64, from 0 (ground) to 1
(ink), with integer labels 0 to 9, in a training part and a held-out test part. Nothing is guessed or
repaired: a file that is broken, cut off or of another format gets a `DataError` that says what was expected
and what was found.

Splits depend on the labels alone and on no random generator. The images, put in order of their label (and of
the file within a label), are counted p = 0, 1, ..., N - 1; the image at p is set aside if the integer part of
(p + 1) size / N is greater than that of p size / N. That sets aside exactly `size` images, evenly spaced, so
every label gets its share to within one image.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

IMAGE_SIZE = (28, 28)
CLASSES = 10
HELD_OUT = 360  # of the 1,797 shipped digits; 1,437 remain for training

_DIGITS_SOURCE = (
    "Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, UCI, "
    "doi:10.24432/C50P49, CC BY 4.0; 8x8 images enlarged three times and padded by two"
)
_DIGITS_SHA256 = "64d99b1575c2d8b2597c05e7e876c38859793b8d5805dfccda1d10001e5fc1c7"
_GZIP_MAGIC = b"\x1f\x8b"


class DataError(ValueError):
    """A data set that cannot be used; the text says where, what was expected and what was found."""


@dataclass(frozen=True, eq=False, repr=False)
class Digits:
    """Labelled images in a training part and a held-out test part.

    Attributes:
        train_images: shape (N, 1, 28, 28), float64; in 0..1 unless standardised.
        train_labels: shape (N,), int64, in 0..9.
        test_images: shape (M, 1, 28, 28), as `train_images`.
        test_labels: shape (M,), as `train_labels`.
        source: where the images come from and what was done to them, in words.

    >>> load_digits()
    Digits(1437 training images, 360 test images of 28x28)
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    source: str

    def __repr__(self) -> str:
        size = "x".join(map(str, self.train_images.shape[2:]))
        train, test = len(self.train_images), len(self.test_images)
        return f"Digits({train} training images, {test} test images of {size})"


def load_digits() -> Digits:
    """The handwritten digits that come with the package: 1,437 to train on, 360 held out.

    Each 8x8 image is enlarged three times by repeating its pixels, padded by two zeros on every side, and
    scaled from 0..16 to 0..1. `runtime/data/README.md` tells source, licence and conversion.

    Returns:
        A `Digits` with arrays of its own; images keep the order of the file in each part.

    Raises:
        DataError: the installed file is not the one that was shipped.

    >>> digits = load_digits()
    >>> digits.train_images.shape, digits.test_images.shape, digits.source[:41]
    ((1437, 1, 28, 28), (360, 1, 28, 28), 'Optical Recognition of Handwritten Digits')
    """
    file = importlib.resources.files("runtime") / "data" / "digits.txt"
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _DIGITS_SHA256:
        raise DataError(
            f"{file}: damaged, so install the package again: expected SHA-256 {_DIGITS_SHA256}, found {found}"
        )
    labels, small = _parse_digits(content.decode("ascii"))
    enlarged = small.repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))[:, np.newaxis] / 16.0
    held_out = _evenly_spaced(labels, HELD_OUT)
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out], _DIGITS_SOURCE)


def load_idx_folder(path: str | os.PathLike[str]) -> Digits:
    """MNIST-style data: four IDX files in one folder, each plain or packed as `.gz`.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`; where both the plain and the packed file exist the plain one is read. The format
    is that of the MNIST page (Y. LeCun, C. Cortes, C. Burges): a magic number (2051 for images, 2049 for
    labels) and the sizes as big-endian 32-bit integers, then the bytes.

    Args:
        path: the folder.

    Returns:
        A `Digits` in the order of the files, pixels divided by 255.

    Raises:
        DataError: a file is missing, unreadable, of another format, cut off or too long, or holds no image,
            images that are not 28x28, a label above 9, or another number of labels than images.

    >>> load_idx_folder("no/such/folder")
    Traceback (most recent call last):
    runtime.data.DataError: no/such/folder: expected a folder with IDX files, found nothing there
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        raise DataError(f"{folder}: expected a folder with IDX files, found {what}")
    train_images, train_labels = _read_part(folder, "train")
    test_images, test_labels = _read_part(folder, "t10k")
    return Digits(train_images, train_labels, test_images, test_labels, f"IDX files in {folder}")


def standardise(digits: Digits) -> Digits:
    """The same digits with pixels (v - mean) / std, both taken over all pixels of the training images only.

    Args:
        digits: any digits; they are not changed.

    Returns:
        A `Digits` whose training pixels have mean 0 and standard deviation 1; `source` tells the two numbers.

    Raises:
        DataError: no training image, or all training pixels are equal.

    >>> training = standardise(load_digits()).train_images
    >>> bool(abs(training.mean()) < 1e-12), bool(abs(training.std() - 1) < 1e-12)
    (True, True)
    """
    if digits.train_images.size == 0:
        raise DataError("train_images is empty; expected at least one image to take the mean from")
    mean = float(digits.train_images.mean())
    std = float(digits.train_images.std())
    if std == 0.0:
        raise DataError(f"train_images has std 0: every pixel is {mean}; expected at least two different pixels")
    return replace(
        digits,
        train_images=(digits.train_images - mean) / std,
        test_images=(digits.test_images - mean) / std,
        source=f"{digits.source}; standardised with mean {mean:.6f} and std {std:.6f} of the training images",
    )


def validation_split(digits: Digits, *, parts: int = 5, part: int = 0) -> Digits:
    """The training images alone, one of `parts` parts set aside as the test part: to choose settings with.

    The held-out images of `digits` are not in the result, so nothing can be chosen on them.

    Args:
        digits: any digits; they are not changed.
        parts: the validation part has len(train_images) // parts images, shared among the labels evenly.
        part: which of the parts is set aside, 0 to parts - 1; they do not overlap.

    Returns:
        A `Digits` whose test part is the validation part.

    Raises:
        ValueError: parts is less than 2 or more than the number of training images, or there is no such part.

    >>> validation_split(load_digits(), parts=5)
    Digits(1150 training images, 287 test images of 28x28)
    """
    count = len(digits.train_labels)
    if not 2 <= parts <= count:
        nearest = f"nearest legal value: {min(max(parts, 2), count)}" if count >= 2 else "no value is legal"
        raise ValueError(f"parts={parts} is not in 2..{count}, the number of training images; {nearest}")
    if not 0 <= part < parts:
        raise ValueError(f"part={part} is not in 0..{parts - 1}; nearest legal value: {min(max(part, 0), parts - 1)}")
    aside = _evenly_spaced(digits.train_labels, count // parts, shift=part)
    return Digits(
        digits.train_images[~aside],
        digits.train_labels[~aside],
        digits.train_images[aside],
        digits.train_labels[aside],
        f"{digits.source}; training images only, part {part} of {parts} set aside for validation",
    )


def _evenly_spaced(labels: Labels, size: int, *, shift: int = 0) -> npt.NDArray[np.bool_]:
    """Which images are set aside: `size` of them, by the rule at the top of this file.

    A shift moves the choice on by so many images in the order of labels; chosen images are at least count // size
    apart, so smaller shifts choose different images.
    """
    count = len(labels)
    p = np.arange(count)
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[np.argsort(labels, kind="stable")] = np.roll((p + 1) * size // count > p * size // count, shift)
    return chosen


def _parse_digits(text: str) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Labels (N,) and pixels (N, 8, 8) in 0..16 of `digits.txt`, whose comment lines explain its format."""
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    labels = np.array([int(label) for label, *_ in lines], dtype=np.int64)
    pixels = [[[int(digit, 17) for digit in row] for row in rows] for _, *rows in lines]
    return labels, np.array(pixels, dtype=np.int64)


# --- IDX files ----------------------------------------------------------------------------------------------


def _read_part(folder: Path, part: str) -> tuple[Images, Labels]:
    """Images and labels of the training part ("train") or the test part ("t10k")."""
    images_file = _find(folder, f"{part}-images-idx3-ubyte")
    labels_file = _find(folder, f"{part}-labels-idx1-ubyte")
    images = _read_idx(images_file, IMAGE_SIZE)
    labels = _read_idx(labels_file, ())
    if len(images) != len(labels):
        raise DataError(
            f"{labels_file}: expected {len(images)} labels, as many as {images_file.name} has images, "
            f"found {len(labels)}"
        )
    wrong = np.flatnonzero(labels >= CLASSES)
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{labels_file}: expected labels in 0..{CLASSES - 1}, found {labels[first]} at position {first}"
        )
    return np.divide(images[:, np.newaxis], 255.0, dtype=np.float64), labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    held = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
    raise DataError(f"{folder}: expected {name} or {name}.gz, found neither; the folder holds {listed or 'nothing'}")


def _read_idx(file: Path, item: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The items of an IDX file of unsigned bytes, shape (N, *item), N >= 1."""
    content = _unpacked(file)
    axes = 1 + len(item)
    header = 4 + 4 * axes
    if len(content) < header:
        raise DataError(f"{file}: expected a header of {header} bytes, found {len(content)} bytes in all")
    magic, *shape = (int.from_bytes(content[at : at + 4], "big") for at in range(0, header, 4))
    expected_magic = 0x0800 + axes  # 08: unsigned bytes; the last byte counts the dimensions
    if magic != expected_magic:
        hint = "it is packed twice" if file.suffix == ".gz" else f"it is packed: name it {file.name}.gz"
        raise DataError(
            f"{file}: expected magic number {expected_magic} (0x{expected_magic:08x}), "
            f"found {magic} (0x{magic:08x}){f'; {hint}' if content.startswith(_GZIP_MAGIC) else ''}"
        )
    count, *found_item = shape
    if tuple(found_item) != item:
        raise DataError(f"{file}: expected images of {_times(item)} pixels, found {_times(found_item)}")
    if count == 0:
        raise DataError(f"{file}: expected at least 1 item, found 0")
    expected = header + count * int(np.prod(item, dtype=np.int64))
    if len(content) != expected:
        raise DataError(
            f"{file}: expected {header} + {_times(shape)} = {expected} bytes, found {len(content)}, "
            f"{abs(len(content) - expected)} too {'few' if len(content) < expected else 'many'}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpacked(file: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: expected a readable file: {error.strerror}") from error
    return _gunzipped(file, content) if file.suffix == ".gz" else content


def _gunzipped(file: Path, packed: bytes) -> bytes:
    # zlib itself, because the gzip module does not tell how much a stream that is cut off gave.
    unpacked, rest = bytearray(), packed
    while rest:  # a gzip file is a sequence of streams
        stream = zlib.decompressobj(wbits=31)  # 31: gzip's header and checksum
        try:
            unpacked += stream.decompress(rest)
        except zlib.error as error:
            raise DataError(
                f"{file}: expected a gzip file, found {len(packed)} bytes that do not unpack: {error}"
            ) from error
        if not stream.eof:
            raise DataError(
                f"{file}: expected a whole gzip file, found one cut off: its {len(packed)} bytes end "
                f"within a stream, {len(unpacked)} bytes unpacked"
            )
        rest = stream.unused_data
    return bytes(unpacked)


def _times(sizes: tuple[int, ...] | list[int]) -> str:
    return "x".join(map(str, sizes))

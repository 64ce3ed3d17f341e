"""The shipped digits are those UCI published, splits keep their promises, and bad files are refused by name.

The conversion is checked by undoing it: written again as commas and numbers, the shipped file must have the
checksum of the original. IDX files are written here by a writer of their own, then broken in every way a file
can be, and each error's text is compared whole.
"""

import gzip
import hashlib
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import data
from runtime.data import DataError, Digits, load_digits, load_idx_folder, standardise, validation_split

FOLDER = Path(data.__file__).parent / "data"
PUBLISHED_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # UCI's page, test part, digits 0 to 9


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


# --- The shipped digits -------------------------------------------------------------------------------------


def shipped_rows() -> list[list[int]]:
    """Label and 64 pixels of each image, read from the shipped text by other means than the product's."""
    text = (FOLDER / "digits.txt").read_text(encoding="ascii")
    found = re.findall(r"^(\d)((?: [0-9A-G]{8}){8})$", text, flags=re.MULTILINE)
    symbols = "0123456789ABCDEFG"
    return [[int(label), *map(symbols.index, rows.replace(" ", ""))] for label, rows in found]


def test_the_shipped_file_holds_the_original_numbers() -> None:
    lines = [",".join(map(str, [*pixels, label])) for label, *pixels in shipped_rows()]
    original = "".join(f"{line}\n" for line in lines).encode()
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for content in (original, (FOLDER / "digits.txt").read_bytes()):
        assert hashlib.sha256(content).hexdigest() in readme


def test_source_and_licence_travel_with_the_digits(digits: Digits) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    head = (FOLDER / "digits.txt").read_text(encoding="ascii")[:400]
    for text in (readme, head, digits.source):
        for credit in (
            "Optical Recognition of Handwritten Digits",
            "Alpaydin",
            "10.24432/C50P49",
            "CC BY 4.0",
        ):
            assert credit in text
    assert "https://creativecommons.org/licenses/by/4.0/" in readme
    assert "What was changed" in readme


def test_every_shipped_digit_occurs_once_enlarged_and_padded(digits: Digits) -> None:
    images = np.concatenate([digits.train_images, digits.test_images])
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert images.shape == (1797, 1, 28, 28)
    assert images.dtype == np.float64
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == PUBLISHED_COUNTS
    centres = (images[:, 0, 3:26:3, 3:26:3] * 16).astype(int).reshape(-1, 64)
    found = [[label, *centre] for label, centre in zip(labels.tolist(), centres.tolist(), strict=True)]
    assert sorted(found) == sorted(shipped_rows())
    block = np.kron(images[:, 0, 3:26:3, 3:26:3], np.ones((3, 3)))
    assert np.array_equal(images[:, 0, 2:26, 2:26], block)
    border = images.copy()
    border[:, 0, 2:26, 2:26] = 0
    assert not border.any()
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_the_split_is_fixed_and_stratified(digits: Digits) -> None:
    assert (len(digits.train_labels), len(digits.test_labels)) == (1437, 360)
    shares = np.array(PUBLISHED_COUNTS) * 360 / 1797
    assert np.all(np.abs(np.bincount(digits.test_labels) - shares) < 1)
    # The rule, counted by hand: images in order of label, one taken where p * 360 passes a multiple of 1797.
    rows = shipped_rows()
    order = sorted(range(1797), key=lambda n: rows[n][0])
    taken, passed = set(), 0
    for n in order:
        passed += 360
        if passed >= 1797:
            passed -= 1797
            taken.add(n)
    assert digits.test_labels.tolist() == [rows[n][0] for n in sorted(taken)]
    centres = (digits.test_images[:, 0, 3:26:3, 3:26:3] * 16).astype(int).reshape(-1, 64)
    assert centres.tolist() == [rows[n][1:] for n in sorted(taken)]


def test_each_call_gives_arrays_of_its_own(digits: Digits) -> None:
    other = load_digits()
    other.train_images[:] = -1
    assert digits.train_images.min() == 0.0
    assert repr(other) == "Digits(1437 training images, 360 test images of 28x28)"


def test_a_damaged_installation_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "runtime"
    (package / "data").mkdir(parents=True)
    content = (FOLDER / "digits.txt").read_bytes().replace(b"005D9100", b"005D9101", 1)
    (package / "data" / "digits.txt").write_bytes(content)
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path / name)
    with pytest.raises(DataError, match=r"digits\.txt: damaged, so install the package again: expected SHA-256 64d9"):
        load_digits()


ASK = "import runtime.data as d; print(d.__file__, len(d.load_digits().train_labels))"


def copied_package(target: Path) -> None:
    """What an installation holds of `runtime` for this: the module, and the folder of the same name."""
    (target / "runtime" / "data").mkdir(parents=True)
    for name in ("__init__.py", "data.py", "data/digits.txt"):
        (target / "runtime" / name).write_bytes((FOLDER.parent / name).read_bytes())


def answer(path: Path) -> list[str]:
    program = f"import sys; sys.path.insert(0, {str(path)!r}); {ASK}"
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_the_module_wins_over_the_folder_of_the_same_name(tmp_path: Path) -> None:
    assert not (FOLDER / "__init__.py").exists()
    copied_package(tmp_path)
    assert answer(tmp_path) == [str(tmp_path / "runtime" / "data.py"), "1437"]


def test_the_digits_load_from_a_zipped_package(tmp_path: Path) -> None:
    copied_package(tmp_path / "plain")
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted((tmp_path / "plain").rglob("*.*")):
            packed.write(file, file.relative_to(tmp_path / "plain"))
    assert answer(archive) == [str(archive / "runtime" / "data.py"), "1437"]


# --- Standardising and splitting ----------------------------------------------------------------------------


def small(labels: list[int], test: int = 2) -> Digits:
    """Digits whose image n is filled with n, so that an image says which one it is."""
    images = np.arange(len(labels) + test, dtype=np.float64)[:, None, None, None] * np.ones((1, 1, 28, 28))
    train, held_out = images[: len(labels)], images[len(labels) :]
    return Digits(train, np.array(labels, dtype=np.int64), held_out, np.zeros(test, np.int64), "made up")


def names(images: npt.NDArray[np.float64]) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_standardising_uses_the_training_images_only() -> None:
    before = small([0, 1, 2, 3])
    after = standardise(before)
    other = standardise(replace(before, test_images=before.test_images * 1000))
    assert np.array_equal(after.train_images, other.train_images)
    assert after.train_images.mean() == pytest.approx(0, abs=1e-15)
    assert after.train_images.std() == pytest.approx(1, rel=1e-15)
    assert np.allclose(after.test_images, (before.test_images - 1.5) / np.sqrt(1.25), rtol=1e-14)
    assert names(before.train_images) == [0, 1, 2, 3]
    assert after.source == "made up; standardised with mean 1.500000 and std 1.118034 of the training images"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([], "train_images is empty; expected at least one image to take the mean from"),
        ([7], "train_images has std 0: every pixel is 0.0; expected at least two different pixels"),
    ],
)
def test_what_cannot_be_standardised_is_refused(labels: list[int], text: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        standardise(small(labels))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.data())
def test_a_validation_part_is_stratified_and_never_held_out(labels: list[int], draw: st.DataObject) -> None:
    parts = draw.draw(st.integers(2, len(labels)))
    before = small(labels)
    after = validation_split(before, parts=parts)
    train, aside = names(after.train_images), names(after.test_images)
    size = len(labels) // parts
    assert len(aside) == size
    assert sorted(train + aside) == list(range(len(labels)))
    assert (train, aside) == (sorted(train), sorted(aside))
    assert after.train_labels.tolist() == [labels[n] for n in train]
    assert after.test_labels.tolist() == [labels[n] for n in aside]
    shares = np.bincount(labels, minlength=10) * size / len(labels)
    assert np.all(np.abs(np.bincount(after.test_labels, minlength=10) - shares) < 1)


def test_a_validation_part_says_what_it_is() -> None:
    source = validation_split(small([1, 2, 3, 4]), parts=2).source
    assert source == "made up; training images only, part 0 of 2 set aside for validation"


@pytest.mark.parametrize(
    ("count", "parts", "text"),
    [
        (4, 1, "parts=1 is not in 2..4, the number of training images; nearest legal value: 2"),
        (4, 5, "parts=5 is not in 2..4, the number of training images; nearest legal value: 4"),
        (1, 2, "parts=2 is not in 2..1, the number of training images; no value is legal"),
    ],
)
def test_a_wrong_number_of_parts_is_refused(count: int, parts: int, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        validation_split(small([0] * count), parts=parts)


# --- IDX files ----------------------------------------------------------------------------------------------

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
PIXELS = np.random.default_rng(0).integers(0, 256, size=(5, 28, 28)).astype(np.uint8)


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """An array as an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def labels_of(*values: int) -> npt.NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


CONTENTS = {
    TRAIN_IMAGES: idx(PIXELS[:3]),
    TRAIN_LABELS: idx(labels_of(7, 0, 9)),
    TEST_IMAGES: idx(PIXELS[3:]),
    TEST_LABELS: idx(labels_of(1, 2)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def pack(folder: Path, name: str) -> Path:
    """Replace a file of the folder by its packed form."""
    packed = folder / f"{name}.gz"
    packed.write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))
    (folder / name).unlink()
    return packed


def refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        load_idx_folder(folder)


@pytest.mark.parametrize("packed", [(), FILES, (TRAIN_IMAGES, TEST_LABELS)], ids=["plain", "gz", "mixed"])
def test_idx_files_are_read(folder: Path, packed: tuple[str, ...]) -> None:
    for name in packed:
        pack(folder, name)
    found = load_idx_folder(str(folder))
    assert np.array_equal(found.train_images, PIXELS[:3, None] / 255)
    assert np.array_equal(found.test_images, PIXELS[3:, None] / 255)
    assert (found.train_labels.tolist(), found.test_labels.tolist()) == ([7, 0, 9], [1, 2])
    assert found.train_images.dtype == np.float64
    assert found.train_labels.dtype == np.int64
    assert found.source == f"IDX files in {folder}"


def test_the_plain_file_is_read_where_both_exist(folder: Path) -> None:
    (folder / f"{TEST_LABELS}.gz").write_bytes(b"not even gzip")
    assert load_idx_folder(folder).test_labels.tolist() == [1, 2]


def test_a_gzip_file_of_several_streams_is_read_whole(folder: Path) -> None:
    content = CONTENTS[TRAIN_IMAGES]
    packed = gzip.compress(content[:100]) + gzip.compress(content[100:])
    (folder / TRAIN_IMAGES).unlink()
    (folder / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    assert np.array_equal(load_idx_folder(folder).train_images, PIXELS[:3, None] / 255)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (TRAIN_IMAGES, b"", "expected a header of 16 bytes, found 0 bytes in all"),
        (TRAIN_IMAGES, CONTENTS[TRAIN_IMAGES][:15], "expected a header of 16 bytes, found 15 bytes in all"),
        (TEST_LABELS, CONTENTS[TEST_LABELS][:7], "expected a header of 8 bytes, found 7 bytes in all"),
        (
            TRAIN_IMAGES,
            CONTENTS[TRAIN_IMAGES][:-1],
            "expected 16 + 3x28x28 = 2368 bytes, found 2367, 1 too few",
        ),
        (
            TRAIN_IMAGES,
            CONTENTS[TRAIN_IMAGES] + b"ab",
            "expected 16 + 3x28x28 = 2368 bytes, found 2370, 2 too many",
        ),
        (TRAIN_LABELS, CONTENTS[TRAIN_LABELS][:-1], "expected 8 + 3 = 11 bytes, found 10, 1 too few"),
        (
            TRAIN_IMAGES,
            CONTENTS[TRAIN_LABELS] + bytes(9),
            "expected magic number 2051 (0x00000803), found 2049 (0x00000801)",
        ),
        (
            TEST_LABELS,
            CONTENTS[TEST_IMAGES],
            "expected magic number 2049 (0x00000801), found 2051 (0x00000803)",
        ),
        (
            TEST_LABELS,
            bytes([0, 0, 13, 1]) + CONTENTS[TEST_LABELS][4:],
            "expected magic number 2049 (0x00000801), found 3329 (0x00000d01)",
        ),
        (TRAIN_IMAGES, idx(PIXELS[:3, :8, :8]), "expected images of 28x28 pixels, found 8x8"),
        (
            TEST_IMAGES,
            bytes([0, 0, 8, 3]) + b"\xff" * 4 + CONTENTS[TEST_IMAGES][8:],
            "expected 16 + 4294967295x28x28 = 3367254359296 bytes, found 1584, 3367254357712 too few",
        ),
        (TRAIN_IMAGES, idx(PIXELS[:0]), "expected at least 1 item, found 0"),
        (TRAIN_LABELS, idx(labels_of(7, 10, 255)), "expected labels in 0..9, found 10 at position 1"),
        (
            TRAIN_LABELS,
            idx(labels_of(7, 1)),
            f"expected 3 labels, as many as {TRAIN_IMAGES} has images, found 2",
        ),
        (
            TEST_LABELS,
            idx(labels_of(7, 1, 1)),
            f"expected 2 labels, as many as {TEST_IMAGES} has images, found 3",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_broken_idx_files_are_refused(folder: Path, name: str, content: bytes, text: str, packed: bool) -> None:
    (folder / name).write_bytes(content)
    file = pack(folder, name) if packed else folder / name
    refused(folder, f"{file}: {text}")


def test_packing_that_the_name_does_not_tell_is_recognised(folder: Path) -> None:
    pack(folder, TRAIN_LABELS).rename(folder / TRAIN_LABELS)
    wrong = "expected magic number 2049 (0x00000801), found 529205248 (0x1f8b0800)"
    refused(folder, f"{folder / TRAIN_LABELS}: {wrong}; it is packed: name it {TRAIN_LABELS}.gz")
    file = pack(folder, TRAIN_LABELS)
    refused(folder, f"{file}: {wrong}; it is packed twice")


def test_a_gzip_file_cut_off_says_how_much_it_gave(folder: Path) -> None:
    file = pack(folder, TRAIN_LABELS)
    packed = file.read_bytes()
    file.write_bytes(packed[:-8])  # without the checksum and the size at the end, so all is there but unchecked
    refused(
        folder,
        f"{file}: expected a whole gzip file, found one cut off: "
        f"its {len(packed) - 8} bytes end within a stream, 11 bytes unpacked",
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda packed: b"x" + packed[1:], "incorrect header check"),
        (lambda packed: packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:], "incorrect data check"),
        (lambda packed: packed[:-1] + b"\x01", "incorrect length check"),
        (lambda packed: packed + b"more", "incorrect header check"),
        (lambda packed: zlib.compress(gzip.decompress(packed)), "incorrect header check"),
    ],
    ids=["magic", "checksum", "length", "tail", "zlib"],
)
def test_a_corrupt_gzip_file_is_refused(folder: Path, spoil: Callable[[bytes], bytes], reason: str) -> None:
    file = pack(folder, TEST_IMAGES)
    file.write_bytes(spoil(file.read_bytes()))
    size = file.stat().st_size
    with pytest.raises(DataError) as caught:
        load_idx_folder(folder)
    start = f"{file}: expected a gzip file, found {size} bytes that do not unpack: "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(reason)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packed files, one of which each example of the next test overwrites."""
    folder = tmp_path_factory.mktemp("spoilt")
    for name, content in CONTENTS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    return folder


@given(st.sampled_from([TRAIN_IMAGES, TEST_LABELS]), st.data())
def test_no_damage_goes_unnoticed(spoilt: Path, name: str, draw: st.DataObject) -> None:
    file = spoilt / f"{name}.gz"
    whole = gzip.compress(CONTENTS[name], mtime=0)
    place = draw.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ draw.draw(st.integers(1, 255))]) + whole[place + 1 :]
    damaged = draw.draw(st.sampled_from([whole[:place], flipped]))
    file.write_bytes(damaged)
    try:
        found = load_idx_folder(spoilt)
    except DataError as error:
        assert str(file) in str(error)  # noqa: PT017 - reading is allowed too, see below
    else:  # some bits carry nothing: the time in gzip's header, what fills the last byte of a stream
        assert damaged == flipped
        assert np.array_equal(found.train_images, PIXELS[:3, None] / 255)
        assert found.test_labels.tolist() == [1, 2]
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_what_is_there(folder: Path, name: str) -> None:
    (folder / name).unlink()
    others = ", ".join(sorted(set(FILES) - {name}))
    refused(folder, f"{folder}: expected {name} or {name}.gz, found neither; the folder holds {others}")


def test_a_folder_of_other_things_is_described_briefly(tmp_path: Path) -> None:
    missing = f"{tmp_path}: expected {TRAIN_IMAGES} or {TRAIN_IMAGES}.gz, found neither; the folder holds "
    refused(tmp_path, f"{missing}nothing")
    for n in range(10):
        (tmp_path / f"{n}.png").touch()
    listed = ", ".join(f"{n}.png" for n in range(8))
    refused(tmp_path, f"{missing}{listed} and 2 more")


def test_what_is_no_folder_or_no_file_is_refused(folder: Path) -> None:
    refused(folder / "none", f"{folder / 'none'}: expected a folder with IDX files, found nothing there")
    file = folder / TRAIN_IMAGES
    refused(file, f"{file}: expected a folder with IDX files, found a file")
    file.unlink()
    file.mkdir()
    refused(folder, f"{file}: expected a readable file: Is a directory")

"""Reading npz and npy files: arrays are those that NumPy reads, and any other content is refused with one line."""

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_files import memory
from measuring import write_arrays
from sitkit.recipes.evaluation.feature_statistics import load_statistics
from sitkit.recipes.evaluation.image_sources import image_array_name, open_array
from sitkit.recipes.storage.arrays import NpzReader, map_npy, read_npy
from sitkit.recipes.storage.npy_header import ArrayError
from sitkit.recipes.support.errors import UserError

ARRAYS: dict[str, np.ndarray] = {
    "floats": np.arange(24.0).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.int32).reshape(2, 3, 4)),
    "big": np.arange(5, dtype=">u2"),
    "scalar": np.array(2.5, np.float32),
    "none": np.zeros((0, 3), np.uint8),
    "bools": np.array([True, False]),
    "complex": np.array([1j, 2]),
    "text": np.array("words"),
    "texts": np.array(["a", "bcd"]),
}


def npy(header: str | bytes, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return an npy file with a given header."""
    text = header.encode("latin-1") if isinstance(header, str) else header
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + content


def described(descr: str = "'<f8'", order: str = "False", shape: str = "(3,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_that_numpy_has_written(save: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    save(file, **ARRAYS)
    with NpzReader(file) as arrays:
        assert arrays.names == tuple(ARRAYS)
        for name, expected in ARRAYS.items():
            for get in (arrays.read, arrays.map):
                found = get(name, "biufcU")
                assert found.shape == expected.shape
                assert found.dtype == expected.dtype.newbyteorder("=") or get == arrays.map
                assert np.array_equal(found, expected)
            assert isinstance(arrays.map(name, "biufcU"), np.memmap) == (save is np.savez and expected.size > 0)
        assert arrays.text("text") == "words"
    for name, expected in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", expected)
        assert np.array_equal(read_npy(tmp_path / f"{name}.npy", "biufcU"), expected)
        assert np.array_equal(map_npy(tmp_path / f"{name}.npy", "biufcU"), expected)


def test_requested_settings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write_arrays(file, **ARRAYS)
    with NpzReader(file) as arrays:
        for name, kinds, shape, said in (
            ("lost", "f", None, "it has no lost; it has: floats, fortran, big"),
            ("floats", "iu", None, "floats is float64 (2, 3, 4) instead of integers"),
            ("floats", "f", (None, 4, 4), "instead of floating-point numbers of shape (N, 4, 4)"),
            ("floats", "f", (None,), "instead of floating-point numbers of shape (N,)"),
            ("texts", "biufc", (2,), "texts is <U3 (2,) instead of numbers of shape (2,)"),
        ):
            for get in (arrays.read, arrays.map):
                with pytest.raises(ArrayError) as error:
                    get(name, kinds, shape)
                assert said in str(error.value)
    with pytest.raises(FileNotFoundError):
        NpzReader(tmp_path / "lost.npz")


WRONG_HEADERS: list[tuple[bytes, str]] = [
    (b"", "not an array in NumPy's format"),
    (b"\x93NUMPY\x01\x00", "does not have the header of a plain array"),
    (npy("(((((((" * 1000), "does not have the header of a plain array"),
    (npy("__import__('os').abort()"), "does not have the header of a plain array"),
    (npy(b"\xff\x00" * 40), "does not have the header of a plain array"),
    (npy(described() * 2), "does not have the header of a plain array"),
    (npy("{'descr': '<f8', 'descr': '<f8', 'shape': (3,)}"), "does not have the header of a plain array"),
    (npy(" " * 9_000 + "{" + " , " * 300), "does not have the header of a plain array"),
    (npy(described(), version=b"\x02\x00")[:10] + b"\xff\xff" + b" " * 99, "does not have the header of a plain array"),
    (npy(described("[('a', '<f8')]")), "does not have the header of a plain array"),
    (npy(described("'|O'"), b"\x80\x04" * 9), "dtype '|O', which is neither numbers nor text"),
    (npy(described("'<M8[ns]'"), bytes(24)), "dtype '<M8[ns]'"),
    (npy(described("'<f16'"), bytes(48)), "dtype '<f16'"),
    (npy(described("'<f3'"), bytes(9)), "dtype '<f3'"),
    (npy(described(shape="(-3,)"), bytes(24)), "has the shape (-3,)"),
    (npy(described(shape="(True,)"), bytes(8)), "has the shape (True,)"),
    (npy(described(shape="(3.0,)"), bytes(24)), "has the shape (3.0,)"),
    (npy(described(shape=f"({'9' * 5000},)"), bytes(24)), "has the shape (999"),
    (npy(described(shape=f"({'1, ' * 40})"), bytes(8)), "has the shape (1, 1"),
    (
        npy(described(shape="(1000000000000,)"), bytes(24)),
        "is float64 (1000000000000,) by its header, and has 24 bytes",
    ),
    (npy(described(shape="(0, 999999999999999999, 999999999999999999)")), "by its header, and has 0 bytes"),
    (npy(described("'<U99999999'"), bytes(24)), "by its header, and has 24 bytes"),
    (npy(described(), bytes(23)), "is float64 (3,) by its header, and has 23 bytes"),
    (npy(described(), bytes(25)), "is float64 (3,) by its header, and has 25 bytes"),
]


@pytest.mark.parametrize(("content", "said"), WRONG_HEADERS, ids=map(str, range(len(WRONG_HEADERS))))
def test_headers_that_lie_are_one_line_and_nothing_is_allocated(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    (tmp_path / "a.npz").write_bytes(zipped({"a": content}))
    (tmp_path / "b.npz").write_bytes(zipped({"a": content}, zipfile.ZIP_DEFLATED))

    def of_zip(name: str, how: str) -> None:
        with NpzReader(tmp_path / name) as arrays:
            arrays.header("a") if how == "header" else getattr(arrays, how)("a", "biufcUS")

    readers: list[Callable[[], Any]] = [lambda: read_npy(tmp_path / "a.npy"), lambda: map_npy(tmp_path / "a.npy")]
    readers += [partial(of_zip, name, how) for name in ("a.npz", "b.npz") for how in ("header", "read", "map")]
    for read in readers:
        with memory(1 << 28), pytest.raises(ArrayError) as error:
            read()
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_entries_that_lie_are_one_line(tmp_path: Path) -> None:
    plain = zipped({"a": npy(described(), bytes(24))})
    directory = plain.index(b"PK\x01\x02")

    def changed(place: int, content: bytes) -> bytes:
        return plain[: directory + place] + content + plain[directory + place + len(content) :]

    for content, said in (
        (b"", "not a zip file"),
        (plain[:-9], "not a zip file"),
        (changed(8, b"\x01"), "encrypted"),
        (changed(10, b"\x0e"), "by another method than deflate"),
        (changed(20, b"\x00\x00\x00\x7f" * 2), "fewer bytes than its entry says"),  # 2 GB, packed and not
        (changed(24, b"\x00\x00\x00\x7f"), "fewer bytes than its entry says"),
        (changed(46, b"b"), "it is damaged"),  # another name than in the header of the content
        (plain.replace(bytes(24), bytes(23) + b"\1"), "Bad CRC"),
    ):
        (tmp_path / "a.npz").write_bytes(content)
        with memory(1 << 28), pytest.raises(ArrayError) as error, NpzReader(tmp_path / "a.npz") as arrays:
            arrays.read("a")
        assert said.lower() in str(error.value).lower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", b"")
            archive.writestr("a.npy", b"")
    with pytest.raises(ArrayError, match="two arrays of one name"):
        NpzReader(tmp_path / "a.npz")


def mutated(case: random.Random, members: dict[str, bytes]) -> bytes:
    """Return a reference with an error, or without one."""
    members = dict(members)
    for _ in range(case.randint(1, 2)):
        name = case.choice(list(members))
        content = members[name]
        kind = case.randrange(7)
        if kind == 0:
            members.pop(name)
        elif kind == 1:
            members[name] = content[: case.randrange(len(content))]
        elif kind == 2:
            place = case.randrange(min(len(content), 128))
            members[name] = content[:place] + bytes([case.randrange(256)]) + content[place + 1 :]
        elif kind == 3:
            members[name] = case.choice(list(members.values()))
        elif kind == 4:
            members[name] = case.choice(WRONG_HEADERS)[0]
        elif kind == 5:
            strange = [
                np.array(["a"] * 6),
                np.zeros((6, 3)),
                np.array(1),
                np.full(6, np.nan),
                np.arange(6, dtype=">i8"),
            ]
            strange += [np.array(text) for text in ("[]", "{", '{"count": -1}', '{"features": 3}', '{"image": "x"}')]
            stream = io.BytesIO()
            np.save(stream, case.choice(strange))
            members[name] = stream.getvalue()
        else:
            members[case.choice(["labels", "images", "arr_1", "score"])] = content
        if not members:
            break
    content = zipped(members, case.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    if case.random() < 0.3:
        place = case.randrange(len(content))
        content = content[:place] + bytes([case.randrange(256)]) + content[place + 1 :]
    return content


def test_references_that_were_mutated_are_read_or_one_line(tmp_path: Path) -> None:
    pixels, about = np.zeros((6, 8, 8, 3), np.uint8), np.array('{"count": 6, "image": [3, 8, 8], "features": {}}')
    whole: dict[str, np.ndarray] = {
        "mu": np.zeros(5),
        "sigma": np.eye(5),
        "arr_0": pixels,
        "labels": np.arange(6),
        "about": about,
    }
    whole |= {"features": np.zeros((6, 5), np.float32), "numbers": np.arange(6), "score": np.array(1.0)}
    members = {}
    for name, array in whole.items():
        np.save(tmp_path / "array.npy", array)
        members[name] = (tmp_path / "array.npy").read_bytes()
    file, problems = tmp_path / "r.npz", []

    def images() -> None:
        with NpzReader(file) as arrays:
            image_array_name(arrays)

    for number in range(400):
        file.write_bytes(mutated(random.Random(number), members))
        for read in (images, lambda: open_array(file, (3, 8, 8), "012345"), lambda: load_statistics(file)):
            try:
                read()
            except (UserError, ArrayError) as problem:
                problems.append(str(problem))
    assert len(problems) > 200
    assert "\n" not in "".join(problems)

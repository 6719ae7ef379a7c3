import importlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
import pytest

from annofree.errors import ImageError, InputError
from annofree.io import images as folder
from annofree.io.images import find_common_folder, find_images, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(
    path: Path, color: tuple[int, ...] | int = RED, size: tuple[int, int] = (6, 4), mode: str = "RGB", **more: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, color).save(path, **more)
    return path


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    array = read_image(path).pixels
    assert array.flags.writeable and array.flags.c_contiguous  # else torch.from_numpy complains
    return array


def names(found: list[Path], below: Path) -> list[str]:
    return [p.relative_to(below).as_posix() for p in found]


class TestFindImages:
    def test_folders_are_searched_at_every_depth_in_sorted_order(self, tmp_path: Path) -> None:
        for name in ("b.JPG", "a/z.png", "a/b/c.webp", "c.tiff", "d.gif"):
            save(tmp_path / name)
        for name in ("notes.txt", ".hidden.png", ".cache/x.png", "a/.DS_Store"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        assert names(find_images([tmp_path]), tmp_path) == ["a/b/c.webp", "a/z.png", "b.JPG", "c.tiff", "d.gif"]

    def test_a_file_given_twice_is_taken_once(self, tmp_path: Path) -> None:
        one, two = save(tmp_path / "a" / "1.png"), save(tmp_path / "a" / "2.png")
        assert find_images([two, tmp_path, tmp_path / "a" / ".." / "a" / "1.png", one]) == [two, one]

    def test_a_file_given_outright_is_taken_whatever_its_name(self, tmp_path: Path) -> None:
        (tmp_path / ".odd").write_bytes(b"x")
        assert find_images([tmp_path / ".odd"]) == [tmp_path / ".odd"]

    def test_the_folder_for_results_is_passed_over(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        save(tmp_path / "out" / "overlays" / "a.jpg")
        assert names(find_images([tmp_path], exclude=tmp_path / "out"), tmp_path) == ["a.png"]

    def test_a_link_to_nowhere_is_found_and_then_named(self, tmp_path: Path) -> None:
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        (found,) = find_images([tmp_path])
        with pytest.raises(ImageError, match=r"gone\.png, but it cannot be opened: No such file"):
            read_image(found)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_does_not_hang_the_search(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(InputError, match="found none"):
            find_images([tmp_path])
        with pytest.raises(InputError, match="is neither"):
            find_images([tmp_path / "pipe.png"])

    def test_wrong_inputs_say_what_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(InputError, match="at least one image or folder"):
            find_images([])
        with pytest.raises(InputError, match=r"nothing here: No such file or directory; check the spelling"):
            find_images([tmp_path / "nothing here"])
        with pytest.raises(InputError, match=r"File name too long"):
            find_images([tmp_path / ("x" * 300)])
        with pytest.raises(InputError, match=r"found none among 1 files; give another folder"):
            find_images([tmp_path])

    def test_a_folder_that_cannot_be_listed_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match=f"{tmp_path.name} cannot: Permission denied"):
            find_images([tmp_path])

    def test_common_folder(self, tmp_path: Path) -> None:
        one, two = save(tmp_path / "a" / "1.png"), save(tmp_path / "b" / "c" / "2.png")
        assert find_common_folder([one, two]) == tmp_path.resolve()
        assert find_common_folder([tmp_path / "b"]) == (tmp_path / "b").resolve()
        assert find_common_folder([two]) == two.parent.resolve()


class TestReadImage:
    def test_the_id_is_the_path_or_as_given(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png")
        assert (read_image(path).id, read_image(path, "mine").id) == (str(path), "mine")

    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"])
    def test_every_format_reads(self, tmp_path: Path, suffix: str) -> None:
        array = pixels(save(tmp_path / f"a.{suffix}"))
        assert array.shape == (4, 6, 3)
        assert np.abs(array.astype(int) - RED).max() <= 4

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
    def test_exif_orientation_is_applied(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        upright = np.zeros((32, 48, 3), np.uint8)
        upright[:16, :16], upright[:16, 32:], upright[16:, :16] = RED, GREEN, BLUE
        # What a camera stores so that the viewer's turn brings it upright (EXIF 2.3, tag 0x0112).
        stored: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a, 1),
            7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1),
        }
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        more: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
        path = tmp_path / f"a.{suffix}"
        PIL.Image.fromarray(np.ascontiguousarray(stored[orientation](upright))).save(path, exif=exif, **more)
        assert np.abs(pixels(path).astype(int) - upright).max() <= 4

    def test_torn_metadata_do_not_lose_the_picture(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01")
        assert pixels(path).shape == (4, 6, 3)

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        array = pixels(save(tmp_path / "a.jpg", (0, 255, 255, 0), mode="CMYK"))
        assert np.abs(array.astype(int) - RED).max() <= 4

    def test_transparency_is_laid_over_white(self, tmp_path: Path) -> None:
        assert (pixels(save(tmp_path / "rgba.png", (255, 0, 0, 0), mode="RGBA")) == WHITE).all()
        assert (pixels(save(tmp_path / "half.webp", (0, 0, 0, 51), mode="RGBA", lossless=True)) == 204).all()
        assert (pixels(save(tmp_path / "la.png", (0, 51), mode="LA")) == 204).all()

    @pytest.mark.parametrize(("suffix", "transparency"), [("png", 0), ("png", b"\x00\xff"), ("gif", 0)])
    def test_palette_with_transparency(self, tmp_path: Path, suffix: str, transparency: int | bytes) -> None:
        image = PIL.Image.new("P", (4, 2), 1)
        image.putpalette([*GREEN, *RED])
        image.paste(0, (0, 0, 2, 2))
        image.save(tmp_path / f"a.{suffix}", transparency=transparency)
        array = pixels(tmp_path / f"a.{suffix}")
        assert (array[:, :2] == WHITE).all() and (array[:, 2:] == RED).all()

    def test_grey_and_one_bit(self, tmp_path: Path) -> None:
        assert (pixels(save(tmp_path / "l.png", 77, mode="L")) == 77).all()
        assert (pixels(save(tmp_path / "1.png", 1, mode="1")) == 255).all()

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_are_scaled_not_clipped(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        PIL.Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(path)
        assert pixels(path)[0, :, 0].tolist() == [0, 1, 128, 255]

    def test_thirty_two_bits_and_floats(self, tmp_path: Path) -> None:
        for values, expected in (
            (np.array([[-5, 0, 32896, 65535]], np.int32), [0, 0, 128, 255]),
            (np.array([[0, 0, 10**6, 2 * 10**6]], np.int32), [0, 0, 128, 255]),
            (np.array([[0, np.nan, 0.5, 1.0]], np.float32), [0, 0, 128, 255]),
            (np.array([[0, 0, 128, 254.6]], np.float32), [0, 0, 128, 255]),
        ):
            PIL.Image.fromarray(values).save(tmp_path / "a.tif")
            assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),  # 12 bits
            (np.array([[0, 512, 1023]], np.uint16), [0, 128, 255]),  # 10 bits
            (np.array([[0, 7000, 14000]], np.uint16), [0, 109, 218]),  # 14 bits
            (np.array([[0, 128, 255]], np.uint16), [0, 128, 255]),
            (np.array([[-1000, 500, 2000]], np.int32), [0, 128, 255]),  # densities
            (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
            (np.array([[-9, -7, -5]], np.int32), [0, 128, 255]),
            (np.array([[-np.inf, 0.5, 1]], np.float32), [0, 128, 255]),
            (np.zeros((1, 3), np.uint16), [0, 0, 0]),
            (np.full((1, 3), -7, np.int32), [0, 0, 0]),
        ],
    )
    def test_the_full_scale_is_that_of_the_values(self, tmp_path: Path, values: npt.NDArray[Any], expected: list[int]) -> None:
        PIL.Image.fromarray(values).save(tmp_path / "a.tif")
        assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected

    def test_sixteen_bit_colour_png(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        row = b"\x00" + struct.pack(">3H", 65535, 32896, 257)
        parts = (
            chunk(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(row)),
            chunk(b"IEND", b""),
        )
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        assert pixels(tmp_path / "a.png")[0, 0].tolist() == [255, 128, 1]

    @pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
    def test_of_an_animation_the_first_picture_is_taken(self, tmp_path: Path, suffix: str) -> None:
        later = [PIL.Image.new("RGB", (6, 4), c) for c in (GREEN, BLUE)]
        path = save(tmp_path / f"a.{suffix}", save_all=True, append_images=later)
        assert np.abs(pixels(path).astype(int) - RED).max() <= 4

    @pytest.mark.parametrize("size", [(1, 1), (20000, 3), (3, 20000)])
    def test_odd_shapes(self, tmp_path: Path, size: tuple[int, int]) -> None:
        assert pixels(save(tmp_path / "a.png", size=size)).shape == (size[1], size[0], 3)


class TestBadFiles:
    def noise(self, path: Path) -> Path:
        PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        return path

    def refused(self, path: Path) -> str:
        with pytest.raises(ImageError) as caught:
            read_image(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        return message

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").touch()
        assert "is empty (0 bytes)" in self.refused(tmp_path / "a.jpg")

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
    @pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
    def test_a_truncated_file(self, tmp_path: Path, suffix: str, part: float) -> None:
        path = self.noise(tmp_path / f"a.{suffix}")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * part)])
        message = self.refused(path)
        assert "cut short" in message or "holds something else" in message

    @pytest.mark.parametrize(
        "content", [b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff", b"\x00" * 999]
    )
    def test_a_file_that_holds_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        self.refused(tmp_path / "a.jpg")

    def test_what_is_not_there_or_no_file(self, tmp_path: Path) -> None:
        assert "No such file" in self.refused(tmp_path / "a.jpg")
        assert "directory" in self.refused(tmp_path).lower()

    def test_flipped_bytes_give_a_picture_or_an_image_error(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        for suffix in ("jpg", "png", "webp", "gif", "bmp"):
            path = self.noise(tmp_path / f"a.{suffix}")
            whole = np.frombuffer(path.read_bytes(), np.uint8)
            for _ in range(20):
                torn = whole.copy()
                torn[random.integers(0, min(len(torn), 200), 5)] = random.integers(0, 255, 5)
                path.write_bytes(torn.tobytes())
                try:
                    assert read_image(path).pixels.dtype == np.uint8
                except ImageError as problem:
                    assert str(path) in str(problem)

    def test_a_decompression_bomb_is_refused_before_it_unpacks(self, tmp_path: Path) -> None:
        path = self.noise(tmp_path / "a.png")
        content = bytearray(path.read_bytes())
        content[16:24] = struct.pack(">2I", 30000, 30000)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
        path.write_bytes(bytes(content))
        assert "expected an image of at most 179 million pixels" in self.refused(path)

    def test_pillows_warnings_do_not_leak_and_are_not_silenced_for_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, before = save(tmp_path / "a.png", size=(30, 30)), list(warnings.filters)
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 500)  # 900 px: worth a warning to Pillow, but no error
        assert read_image(path).size == (30, 30)
        assert list(warnings.filters) == before
        with pytest.raises(PIL.Image.DecompressionBombWarning):
            PIL.Image.open(path)


def test_importing_changes_nothing() -> None:
    def state() -> object:
        return list(warnings.filters), PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES

    before = state()
    importlib.reload(folder)
    assert state() == before


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (30, 50), (50, 30)])
def test_strips_of_turned_pictures_fall_into_place(
    orientation: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8))
    image.getexif()[0x0112] = orientation
    monkeypatch.setattr(folder, "_STRIP", 700)
    turned = PIL.ImageOps.exif_transpose(image)
    assert np.array_equal(folder.convert_pillow(image), np.asarray(turned))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_strips_of_any_kind_are_as_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    image = PIL.Image.fromarray(array).convert("L" if mode == "I;16" else mode)
    image = PIL.Image.fromarray(array.astype(np.uint16) * 200) if mode == "I;16" else image
    whole = folder.convert_pillow(image)
    monkeypatch.setattr(folder, "_STRIP", 200)
    assert np.array_equal(folder.convert_pillow(image), whole)


@pytest.mark.parametrize("size", [(1, 1), (3, 20000), (20000, 3), (90, 1700)])
def test_strips_hold_every_pixel(size: tuple[int, int], tmp_path: Path) -> None:
    """Images are copied strip by strip: wide ones, tall ones and such as end within a strip."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "p.png")
    read = read_image(tmp_path / "p.png").pixels
    assert np.array_equal(read, pixels) and read.flags.owndata and read.flags.writeable

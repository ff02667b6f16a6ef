import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_fast_rcnn.data import images
from tf_fast_rcnn.data.images import image_layout, is_plain, read_image, uses_few_bits
from tf_fast_rcnn.errors import InputError

# Odd sizes, so that subsampled chroma is also checked at the borders.
RGB = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
WORDS = np.random.default_rng(1).integers(0, 65536, (37, 53), np.uint16)
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


def decoded_by_tensorflow(path):
    contents = path.read_bytes()
    if contents[:2] == b"\xff\xd8":
        return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    return tf.io.decode_image(contents, channels=3, expand_animations=False).numpy()


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def plain_files():
    image = Image.fromarray(RGB)
    for subsampling in (0, 1, 2):
        yield f"jpeg {subsampling}", encoded(image, "JPEG", subsampling=subsampling)
    yield "jpeg progressive", encoded(image, "JPEG", progressive=True)
    yield "jpeg grey", encoded(image.convert("L"), "JPEG")
    yield "jpeg of a phone", encoded(image, "MPO", save_all=True, append_images=[image])
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"png {mode}", encoded(image.convert(mode), "PNG")
    yield "png half transparent", encoded(Image.fromarray(np.dstack([RGB, RGB[..., 0]])), "PNG")
    yield "png palette, transparent", encoded(image.quantize(16), "PNG", transparency=bytes(range(0, 160, 10)))
    yield "png grey 16 bit", encoded(Image.fromarray(WORDS), "PNG")
    yield "png rgb 16 bit", cv2.imencode(".png", np.dstack([WORDS, WORDS.T.reshape(37, 53), WORDS[::-1]]))[1].tobytes()


def other_files():
    image = Image.fromarray(RGB)
    yield "jpeg cmyk", encoded(image.convert("CMYK"), "JPEG")
    yield "gif", encoded(image, "GIF")
    yield "webp", encoded(image, "WEBP", lossless=True)
    yield "bmp", encoded(image, "BMP")
    yield "tiff 16 bit", encoded(Image.fromarray(WORDS), "TIFF")
    yield "png animation", encoded(image, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("contents", [pytest.param(data, id=name) for name, data in plain_files()])
def test_plain_files_decode_alike_in_tensorflow(tmp_path, contents):
    path = tmp_path / "image"
    path.write_bytes(contents)
    assert is_plain(path)
    np.testing.assert_array_equal(read_image(path), decoded_by_tensorflow(path))


@pytest.mark.parametrize("contents", [pytest.param(data, id=name) for name, data in other_files()])
def test_other_files_are_read_but_not_plain(tmp_path, contents):
    path = tmp_path / "image"
    path.write_bytes(contents)
    assert not is_plain(path)
    pixels = read_image(path)
    assert pixels.shape == (37, 53, 3)
    assert pixels.dtype == np.uint8


def test_grey_and_16_bit_values(tmp_path):
    Image.fromarray(np.uint16([[0, 255, 256, 32768, 65535]])).save(tmp_path / "words.png")
    assert read_image(tmp_path / "words.png")[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]
    Image.fromarray(np.uint8([[0, 7, 255]])).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[0].tolist() == [[v, v, v] for v in (0, 7, 255)]


def test_cmyk_colours(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "red.jpg")[8, 8], [255, 0, 0], atol=4)


@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, extension):
    path = tmp_path / f"image.{extension}"
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=tags, **({"lossless": True} if extension == "webp" else {}))
    displayed = TURNS[orientation](RGB)
    np.testing.assert_array_equal(read_image(path), displayed)
    assert image_layout(path)[:2] == displayed.shape[:2]
    assert is_plain(path) == (orientation == 1 and extension == "png")


def test_layout_tells_the_orientation(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "side.jpg", exif=tags)
    Image.fromarray(RGB).save(tmp_path / "upright.jpg")
    assert image_layout(tmp_path / "side.jpg") == (53, 37, 6)
    assert image_layout(tmp_path / "upright.jpg") == (37, 53, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 0.02, 0.5, 0.9])
def test_truncated_files_give_one_line(tmp_path, kind, kept):
    contents = encoded(Image.fromarray(RGB), kind)
    path = tmp_path / "cut"
    path.write_bytes(contents[: int(kept * len(contents))])
    with pytest.raises(InputError, match="cut: cannot read the image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: no such file"):
        read_image(tmp_path / "none.jpg")


def test_samples_of_32_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="32-bit samples"):
        read_image(tmp_path / "float.tif")


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(InputError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_damaged_headers_give_an_image_or_one_line(tmp_path, kind):
    rng = np.random.default_rng(0)
    contents = np.frombuffer(encoded(Image.fromarray(RGB), kind), np.uint8)
    path = tmp_path / "damaged"
    messages = []
    for _ in range(30):
        damaged = contents.copy()
        damaged[rng.integers(0, 100, 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            assert read_image(path).shape[2] == 3
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


# --- files that Pillow reads and TensorFlow refuses -------------------------------------------------------------------


def png_chunks(contents):
    """`[type, data, checksum]` of each chunk."""
    chunks, place = [], 8
    while place < len(contents):
        (length,) = struct.unpack_from(">I", contents, place)
        end = place + 8 + length
        chunks.append([contents[place + 4 : place + 8], contents[place + 8 : end], contents[end : end + 4]])
        place = end + 4
    return chunks


def png_of(chunks):
    """A file of chunks; the checksum None is the right one."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data, checksum in chunks:
        right = struct.pack(">I", zlib.crc32(kind + data))
        parts += [struct.pack(">I", len(data)), kind, data, right if checksum is None else checksum]
    return b"".join(parts)


def damaged_files():
    image = Image.fromarray(RGB).resize((160, 120))
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    header, *_, end = chunks = png_chunks(png)
    pixels = zlib.decompress(b"".join(data for kind, data, _ in chunks if kind == b"IDAT"))
    whole = zlib.compress(pixels)
    palette = png_chunks(encoded(image.quantize(16), "PNG"))
    unknown = [b"ABCD", b"x", None]
    yield "png without its end", png[:-12], "the chunk IEND"
    yield "png with half its end", png[:-4], "the chunk IEND"
    yield "png with a wrong end", png[:-4] + b"oops", "wrong checksum in its chunk IEND"
    yield "png, unknown critical chunk first", png_of([header, unknown, *chunks[1:]]), "unknown critical chunk 'ABCD'"
    yield "png, unknown critical chunk last", png_of([*chunks[:-1], unknown, end]), "unknown critical chunk 'ABCD'"
    yield "png, wrong checksum", png_of([header, [b"IDAT", whole, b"oops"], end]), "wrong checksum in its chunk IDAT"
    yield "png without zlib's end", png_of([header, [b"IDAT", whole[:-4], None], end]), "pixels are incomplete"
    half = zlib.compress(pixels[: len(pixels) // 2])
    yield "png with rows missing", png_of([header, [b"IDAT", half, None], end]), "rows missing"
    yield "png with two headers", png_of([header, *chunks]), "two headers"
    yield "png without palette", png_of([chunk for chunk in palette if chunk[0] != b"PLTE"]), "PLTE"
    yield "jpeg with zeros for its end", jpeg[:-2] + bytes(2), "(the marker EOI|truncated)"
    yield "jpeg with zeros and no end", jpeg[:-2] + bytes(64), "(the marker EOI|truncated)"
    scan = jpeg.index(b"\xff\xda")
    yield "jpeg, segment in its pixels", jpeg[: scan + 300] + b"\xff\xe5" + jpeg[scan + 302 :], "damaged pixels"


@pytest.mark.parametrize(("contents", "found"), [pytest.param(*rest, id=name) for name, *rest in damaged_files()])
def test_files_that_tensorflow_refuses_are_refused(tmp_path, contents, found):
    path = tmp_path / "spoilt"
    path.write_bytes(contents)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded_by_tensorflow(path)
    if contents.startswith(b"\x89PNG"):  # Of a JPEG, Pillow may miss the end or not.
        with Image.open(path) as image:
            image.convert("RGB")  # Pillow is content.
    with pytest.raises(InputError, match=f"spoilt: cannot read the image .*{found}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def whole_files():
    image = Image.fromarray(RGB)
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    header, *rest = png_chunks(png)
    yield "png with bytes after its end", png + b"more"
    yield "png with a chunk after its end", png + png_of([[b"ABCD", b"x", None]])[8:]
    yield "png with a chunk of somebody's own", png_of([header, [b"abCD", b"x", None], *rest])
    yield "jpeg with bytes after its end", jpeg + b"more"
    yield "jpeg with fill bytes", jpeg[:2] + b"\xff\xff" + jpeg[2:]
    yield "jpeg with restarts", encoded(image, "JPEG", restart_marker_blocks=2)
    yield "jpeg with a comment", encoded(image, "JPEG", comment=b"\xff\xd8 \xff\xda")


@pytest.mark.parametrize("contents", [pytest.param(data, id=name) for name, data in whole_files()])
def test_unusual_files_that_tensorflow_reads_are_read(tmp_path, contents):
    path = tmp_path / "image"
    path.write_bytes(contents)
    np.testing.assert_array_equal(read_image(path), decoded_by_tensorflow(path))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_no_file_is_read_that_tensorflow_refuses(tmp_path, kind):
    rng = np.random.default_rng(1)
    contents = np.frombuffer(encoded(Image.fromarray(RGB).resize((160, 120)), kind), np.uint8)
    path, read = tmp_path / "damaged", 0
    for _ in range(80):
        damaged = contents[: rng.integers(len(contents) // 2, len(contents) + 1) if rng.random() < 0.2 else None].copy()
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path)
        except InputError:
            continue
        read += 1
        decoded_by_tensorflow(path)
    assert read > 10 or kind == "PNG"  # PNG has checksums.


def test_files_of_16_bits_with_12_bits_are_known(tmp_path):
    few, many = WORDS >> 4, WORDS
    for name, words in (("few", few), ("many", many)):
        Image.fromarray(words).save(tmp_path / f"{name}.png")
        Image.fromarray(words).save(tmp_path / f"{name}.tif")
        cv2.imwrite(str(tmp_path / f"{name}_rgb.png"), np.dstack([words] * 3))
    Image.fromarray((few >> 8).astype(np.uint8)).save(tmp_path / "dark.png")
    found = {path.name: uses_few_bits(path, read_image(path)) for path in tmp_path.iterdir()}
    assert {name for name, few_bits in found.items() if few_bits} == {"few.png", "few.tif", "few_rgb.png"}
    assert len(found) == 7


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_pixels_do_not_depend_on_how_many_are_converted_at_a_time(tmp_path, monkeypatch, rows):
    expected = np.random.default_rng(0).integers(0, 256, (37, 23, 3), np.uint8)
    Image.fromarray(expected).save(tmp_path / "image.png")
    monkeypatch.setattr(images, "_CONVERTED_PIXELS", rows * 23)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), expected)

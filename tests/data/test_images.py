import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_fast_rcnn.data.images import image_layout, is_plain, read_image
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

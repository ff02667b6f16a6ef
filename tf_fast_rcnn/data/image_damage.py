"""Finds damage in PNG and JPEG files that Pillow overlooks and TensorFlow refuses.

Pillow reads the rows that it needs and stops. TensorFlow's decoders go on to the end of the file: they need PNG's IEND
and JPEG's EOI, correct checksums of the chunks that hold pixels, and know every critical chunk. Without this check such
a file would end a training in an error that does not name it.
"""

from __future__ import annotations

import re
import struct
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
_PALETTE = 3
# A marker in JPEG's coded data: neither a stuffed byte (FF 00), nor a restart (FF D0 to D7), nor a fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_EOI, _SOS, _TEM, _FIRST_APP, _LAST_APP = 0xD9, 0xDA, 0x01, 0xE0, 0xEF


def damage(contents: bytes) -> str | None:
    """What is wrong with a PNG or JPEG file that Pillow can read; None for whole files and other formats.

    Example:
        >>> damage(b"\\xff\\xd8\\xff\\xda\\x00\\x02")
        'a JPEG without its end, the marker EOI'
    """
    if contents.startswith(_PNG):
        return _png_damage(contents)
    return _jpeg_damage(contents) if contents.startswith(b"\xff\xd8") else None


def png_bit_depth(contents: bytes) -> int | None:
    """Bits of each sample in a PNG file; None for other formats."""
    return contents[24] if contents.startswith(_PNG) and len(contents) > 24 else None


def _png_damage(contents):
    position, kinds, rows = len(_PNG), [], _Rows()
    while position + 12 <= len(contents):
        (length,) = struct.unpack_from(">I", contents, position)
        kind = contents[position + 4 : position + 8]
        end = position + 12 + length
        if kind in _CRITICAL:
            if end > len(contents):
                break
            (checksum,) = struct.unpack_from(">I", contents, end - 4)
            if zlib.crc32(memoryview(contents)[position + 4 : end - 4]) != checksum:
                return f"a PNG with a wrong checksum in its chunk {kind.decode()}"
            if kind == b"IHDR" and kind in kinds:
                return "a PNG with two headers"
            kinds.append(kind)
            rows.add(kind, contents[position + 8 : end - 4])
        elif kind[:1].isupper():
            return f"a PNG with the unknown critical chunk {kind.decode('latin-1')!r}"
        if kind == b"IEND":
            return rows.damage(b"PLTE" in kinds)
        position = end
    return "a PNG without its end, the chunk IEND"


class _Rows:
    """Counts the bytes that a PNG's pixels unpack to."""

    def __init__(self):
        self._header, self._unpack, self._bytes, self._broken = None, zlib.decompressobj(), 0, False

    def add(self, kind, data):
        if kind == b"IHDR":
            self._header = data
        elif kind == b"IDAT" and not self._broken:
            try:
                self._bytes += len(self._unpack.decompress(data))
            except zlib.error:
                self._broken = True

    def damage(self, has_palette):
        if self._header is None or len(self._header) != 13 or self._broken or not self._unpack.eof:
            return "a PNG whose pixels are incomplete"
        width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", self._header)
        if colours == _PALETTE and not has_palette:
            return "a PNG without its palette, the chunk PLTE"
        row = 1 + (width * depth * _CHANNELS.get(colours, 1) + 7) // 8
        return "a PNG with rows missing" if not interlaced and self._bytes < height * row else None


def _jpeg_damage(contents):
    position, in_scan = 2, False
    while True:
        found = _MARKER.search(contents, position)
        if found is None:
            return "a JPEG without its end, the marker EOI"
        marker, position = contents[found.start() + 1], found.end()
        if marker == _EOI:
            return None
        if in_scan and _FIRST_APP <= marker <= _LAST_APP:
            return "a JPEG with damaged pixels"
        if marker == _TEM:
            continue
        if position + 2 > len(contents):
            return "a JPEG without its end, the marker EOI"
        position += struct.unpack_from(">H", contents, position)[0]
        in_scan = in_scan or marker == _SOS

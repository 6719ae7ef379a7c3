"""Label Studio's brush: the run lengths of the public rle-pack format, a stream of bits, most significant first.

It says how many words there are (32 bits), how long a word is less one (5), four lengths of counts less one (4 each); then for
each run one bit 1, two bits that choose a length, the count less one, and the word; or, after a bit 0, that many words as they
stand.  A word is a byte here, and a pixel four equal ones (red, green, blue, alpha), row by row, 255 in the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError

__all__ = ["decode_brush", "encode_brush"]

_CHANNELS, _WIDTH = 4, 8
_COUNT_BITS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16

BoolArray = npt.NDArray[np.bool_]


def encode_brush(mask: BoolArray) -> list[int]:
    """Encode a mask (H, W) as Label Studio's brush does, a list of bytes.

    >>> encode_brush(np.array([[True, False]]))
    [0, 0, 0, 8, 57, 27, 252, 127, 241, 128, 0]
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    pieces = -(-lengths // _LONGEST)
    values = np.repeat(np.where(flat[starts], 255, 0), pieces)
    counts = np.full(pieces.sum(), _LONGEST)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _LONGEST
    choice = np.searchsorted(1 << _COUNT_BITS, counts)
    bits = _COUNT_BITS[choice]
    words = ((4 + choice) << bits | (counts - 1)) << 8 | values
    head = [(flat.size * _CHANNELS, 32), (7, 5), *((int(b) - 1, 4) for b in _COUNT_BITS)]
    stream = _bits(np.array([[v, n] for v, n in head] + np.stack([words, bits + 11], 1).tolist(), np.int64))
    return list(np.packbits(stream).tolist())


def _bits(fields: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Write fields (n, 2) of value and length as bits, most significant first."""
    values, lengths = fields.T
    ends = np.repeat(np.cumsum(lengths), lengths)
    shifts = ends - 1 - np.arange(len(ends))
    return np.asarray((np.repeat(values, lengths) >> shifts) & 1, np.uint8)


def decode_brush(rle: Sequence[int], size: tuple[int, int]) -> BoolArray:
    """Decode Label Studio's brush run lengths to a mask (H, W): the pixels whose last channel is not 0.

    Raises InputError for invalid codes, and for another size.
    """
    stream = _Bits(rle)
    words, width = stream.read_number(32), stream.read_number(5) + 1
    lengths = [stream.read_number(4) + 1 for _ in range(4)]
    if words != size[0] * size[1] * _CHANNELS:
        raise InputError(f"expected brush run lengths of {size[0]} x {size[1]} pixels, got {words / _CHANNELS:g} pixels")
    if width != _WIDTH:
        raise InputError(f"expected brush run lengths of {_WIDTH}-bit words, got {width} bits; export the task again")
    out, at = np.zeros(words, np.uint8), 0
    while at < words:
        run = stream.read_number(1)
        count = stream.read_number(lengths[stream.read_number(2)]) + 1
        out[at : at + count] = stream.read_number(width) if run else stream.read_numbers(count, width)[: words - at]
        at += count
    return np.asarray(out.reshape(*size, _CHANNELS)[..., -1] > 0)


class _Bits:
    """A stream of bits, read in pieces."""

    def __init__(self, data: Sequence[int]) -> None:
        try:
            self._bits = np.unpackbits(np.asarray(data, np.uint8))
        except (OverflowError, TypeError, ValueError):
            raise InputError("expected brush run lengths as a list of bytes, got others; export the task again") from None
        self._digits = (self._bits + ord("0")).astype(np.uint8).tobytes()
        self._at = 0

    def read_number(self, length: int) -> int:
        """Read one number of so many bits."""
        self._at += length
        if self._at > len(self._digits):
            raise InputError("expected brush run lengths, but they end too soon; export the task again")
        return int(self._digits[self._at - length : self._at], 2)

    def read_numbers(self, count: int, length: int) -> npt.NDArray[np.int64]:
        """Read many numbers of so many bits each."""
        begin, self._at = self._at, self._at + count * length
        if self._at > len(self._bits):
            raise InputError("expected brush run lengths, but they end too soon; export the task again")
        return np.asarray(self._bits[begin : self._at].reshape(count, length) @ (1 << np.arange(length)[::-1]), np.int64)

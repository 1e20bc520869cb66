"""A pydicom plug-in, based on imagecodecs, for compressed transfer syntaxes that neither pydicom nor Pillow decodes.

These are lossless JPEG, which many CT scanners write, 12-bit JPEG, JPEG-LS and high-throughput JPEG 2000.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

__all__ = ["DECODER_DEPENDENCIES", "decode_frame", "is_available", "register"]

_CODECS: dict[str, Callable[..., Any]] = {
    uid.JPEGExtended12Bit: imagecodecs.jpeg_decode,
    uid.JPEGLossless: imagecodecs.ljpeg_decode,
    uid.JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.HTJ2KLossless: imagecodecs.htj2k_decode,
    uid.HTJ2KLosslessRPCL: imagecodecs.htj2k_decode,
    uid.HTJ2K: imagecodecs.htj2k_decode,
}
DECODER_DEPENDENCIES = {syntax: ("numpy", "imagecodecs") for syntax in _CODECS}
_NAME = "quietray"


def register() -> None:
    """Add the plug-in to pydicom's decoders, once.

    Examples
    --------
    >>> register()
    >>> "quietray" in get_decoder(uid.JPEGLosslessSV1).available_plugins
    True
    """
    for decoder in map(get_decoder, _CODECS):
        if _NAME not in decoder.available_plugins:
            decoder.add_plugin(_NAME, (__name__, "decode_frame"))


def is_available(syntax: str) -> bool:
    """Return whether a transfer syntax can be decoded; called by pydicom."""
    return syntax in _CODECS


def decode_frame(source: bytes, runner: Any) -> bytearray:
    """Return the pixels of a compressed frame as pydicom expects them: little endian, in whole bytes."""
    pixels = np.ascontiguousarray(_CODECS[runner.transfer_syntax](source))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return bytearray(pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes())

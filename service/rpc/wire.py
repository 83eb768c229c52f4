"""Messages of callers, measured on the wire before they are built: two bytes may be a message."""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.errors import ErrorCode, ServiceError, invalid_argument

_MAX_FIELDS: Final = 64
_VARINT, _FIXED_64, _SIZED, _FIXED_32 = 0, 1, 2, 5


def most_beside_images(boxes: int) -> int:
    """Bytes of a message beside its image: of so many boxes, and of all else."""
    return 64 * 2**10 + 32 * boxes


def check_size(data: bytes, message: Descriptor, most: int) -> None:
    """Bounds what a message holds beside fields of bytes, which are not taken apart.

    Raises `ServiceError` payload_too_large for more than `most` bytes or 64 fields of them,
    invalid_argument if `data` is not what protobuf writes.
    """
    images = {
        number
        for number, field in message.fields_by_number.items()
        if field.type == FieldDescriptor.TYPE_BYTES
    }
    at = fields = rest = 0
    while at < len(data):
        fields += 1
        key, at = _varint(data, at)
        kind, size = key & 7, 0
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _SIZED:
            size, at = _varint(data, at)
            rest += 0 if key >> 3 in images else size
        elif kind in (_FIXED_32, _FIXED_64):
            size = 4 if kind == _FIXED_32 else 8
        else:
            raise invalid_argument("message", f"does not parse: a field of wire type {kind}")
        at += size
        if fields > _MAX_FIELDS or rest > most:
            raise ServiceError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"message: takes at most {_MAX_FIELDS} fields, and {most} bytes beside an image",
                field="message",
            )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where it ends."""
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise invalid_argument("message", "does not parse: a number without an end")

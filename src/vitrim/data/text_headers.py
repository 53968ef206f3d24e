"""The text at the head of NRRD and MetaImage files: its fields, and whether the voxels that it declares are there."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from vitrim.data.file_checks import check_end, check_file, check_promise, unreadable
from vitrim.errors import DataError

LONGEST = 1 << 20
"""Bytes within which a header must end."""

BLOCK = 1 << 20

NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t"), 8),
    "float": 4,
    "double": 8,
}
"""Bytes of a voxel by NRRD's name of its type (https://teem.sourceforge.net/nrrd/format.html)."""

META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
"""Bytes of a voxel by MetaImage's name of its type."""

SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "RAS", "LAS", "LPS")
"""The spaces of an NRRD file that say where the patient's right, front and head are."""


@dataclass(frozen=True)
class TextHeader:
    """The header of an NRRD or MetaImage file."""

    fields: dict[str, str]
    """Name to value; the file's own additions (NRRD: `key:=value`) are among them"""
    data: Path
    """The file with the voxels: the same, or one beside it"""
    offset: int
    """Where the voxels begin in it, in bytes"""
    zipped: bool
    """Whether the voxels are compressed, by gzip or zlib"""
    sizes: tuple[int, ...]
    """Length of each axis, the axis of channels included"""
    itemsize: int
    """Bytes of one number"""
    oriented: bool
    """Whether the header says where the patient's right, front and head are"""
    zipped_size: int | None = None
    """Bytes of the compressed voxels, if the header says how many"""


def read_text_header(path: Path) -> TextHeader:
    """Read the header of an NRRD or MetaImage file.

    Raises DataError if the file is of neither format, is damaged, or stores its voxels in a way that is not supported:
    as text, in several files, or in a file that does not lie beside the header.
    """
    check_file(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(LONGEST)
        return _nrrd(path, start) if start.startswith(b"NRRD") else _meta(path, start)
    except DataError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(path, error) from error


def check_voxels(header: TextHeader) -> None:
    """Raise DataError unless the file holds exactly the voxels that its header declares.

    Compressed voxels are decompressed once, so that their checksum is compared: SimpleITK returns zeros where that of a
    MetaImage fails.
    """
    check_file(header.data)
    check_promise(header.sizes, header.itemsize, header.data, header.zipped)
    declared = math.prod(header.sizes) * header.itemsize
    with header.data.open("rb") as stream:
        stream.seek(header.offset)
        if not header.zipped:
            found = min(header.data.stat().st_size - header.offset, declared)
            stream.seek(declared, 1)
        else:
            expander, found = zlib.decompressobj(zlib.MAX_WBITS | 32), 0  # 32: zlib or gzip
            try:
                while not expander.eof and (block := expander.unconsumed_tail or stream.read(BLOCK)):
                    found += len(expander.decompress(block, BLOCK))
            except zlib.error as error:
                raise DataError(f"{header.data} is damaged: its voxels cannot be decompressed ({error})") from error
            if not expander.eof:
                raise DataError(f"{header.data} is damaged: its compressed voxels end too early")
            stream.seek(-len(expander.unused_data), 1)
            taken = stream.tell() - header.offset
            if header.zipped_size not in (None, taken):
                raise DataError(
                    f"{header.data} is damaged: its header declares {header.zipped_size} bytes of compressed voxels, "
                    f"it has {taken}"
                )
        if found != declared:
            raise DataError(f"{header.data} is damaged: its header declares {declared} bytes of voxels, it has {found}")
        check_end(stream, header.data)


def _nrrd(path: Path, start: bytes) -> TextHeader:
    text, blank, _ = start.partition(b"\n\n")
    if b"\r\n\r\n" in start and len(start.partition(b"\r\n\r\n")[0]) < len(text):
        text, blank, _ = start.partition(b"\r\n\r\n")
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        own = line.find(":=") >= 0 and (line.find(": ") < 0 or line.find(":=") < line.find(": "))
        name, between, value = line.partition(":=" if own else ":")
        if not between:
            raise DataError(f"{path} is damaged: its header has the line {line[:40]!r}")
        fields[name.strip()] = _unescaped(value) if own else value.strip()
    _check_fields(path, fields, ("type", "dimension", "sizes", "encoding"))
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise DataError(f"{path} has the encoding {encoding!r}, which vitrim does not read: save it as raw or gzip")
    if any(fields.get(name, "0") != "0" for name in ("line skip", "byte skip", "lineskip", "byteskip")):
        raise DataError(f"{path} skips bytes before its voxels, which vitrim does not read: save it again without that")
    if fields["type"] not in NRRD_BYTES:
        raise DataError(f"{path} holds voxels of type {fields['type']!r}: expected plain numbers")
    units = fields.get("space units", fields.get("units", ""))
    if set(units.replace('"', " ").split()) - {"mm", "millimeter", "millimeters", "none", "???"}:
        raise DataError(f"{path} has the units {units}: vitrim reads NRRD files in mm")
    sizes = _sizes(path, fields["sizes"], int(fields["dimension"]))
    beside = fields.get("data file", fields.get("datafile"))
    if not beside and not blank:
        raise DataError(f"{path} is damaged: it ends within its header")
    return TextHeader(
        fields,
        _beside(path, beside) if beside else path,
        0 if beside else len(text) + len(blank),
        encoding != "raw",
        sizes,
        NRRD_BYTES[fields["type"]],
        fields.get("space") in SPACES and "space directions" in fields,
    )


def _meta(path: Path, start: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    offset = 0
    for line in start.splitlines(keepends=True):
        offset += len(line)
        name, between, value = line.decode("utf-8", "replace").partition("=")
        if not between:
            raise DataError(
                f"{path} is no NRRD or MetaImage file, or damaged: its header has the line {name[:40].strip()!r}"
            )
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            break
    _check_fields(path, fields, ("NDims", "DimSize", "ElementType", "ElementDataFile"))
    if fields.get("BinaryData", "True").lower() not in ("true", "1"):
        raise DataError(f"{path} stores its voxels as text, which vitrim does not read: save it with BinaryData = True")
    if fields.get("HeaderSize", "0") != "0":
        raise DataError(f"{path} skips bytes before its voxels, which vitrim does not read: save it again without that")
    if fields["ElementType"] not in META_BYTES:
        raise DataError(f"{path} holds voxels of type {fields['ElementType']!r}: expected plain numbers")
    beside = fields["ElementDataFile"]
    local = beside.upper() == "LOCAL"
    zipped = fields.get("CompressedData", "False").lower() in ("true", "1")
    if zipped:  # without it SimpleITK finds no voxels, and does not say so
        _check_fields(path, fields, ("CompressedDataSize",))
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    return TextHeader(
        fields,
        path if local else _beside(path, beside),
        offset if local else 0,
        zipped,
        (*_sizes(path, fields["DimSize"], int(fields["NDims"])), channels),
        META_BYTES[fields["ElementType"]],
        any(name in fields for name in ("TransformMatrix", "Rotation", "Orientation")),
        int(fields["CompressedDataSize"]) if zipped else None,
    )


def _check_fields(path: Path, fields: dict[str, str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in fields]
    if missing:
        raise DataError(f"{path} is no NRRD or MetaImage file, or damaged: its header has no {missing[0]!r}")


def _sizes(path: Path, text: str, axes: int) -> tuple[int, ...]:
    sizes = tuple(int(n) for n in text.split())
    if len(sizes) != axes or min(sizes, default=0) < 1:
        raise DataError(f"{path} is damaged: its header declares {axes} axes of the lengths {text!r}")
    return sizes


def _beside(path: Path, name: str) -> Path:
    """Return the file with the voxels. Raises DataError if it is not one file in the same folder."""
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(f"{path} keeps its voxels in several files, which vitrim does not read: save it as one file")
    if Path(name).name != name or "\\" in name:
        raise DataError(f"{path} keeps its voxels in {name}, which is not followed: put the file beside the header")
    data = path.with_name(name)
    if not data.is_file():
        raise DataError(f"{path} keeps its voxels in {name}, which is not there")
    return data


def _unescaped(value: str) -> str:
    r"""Undo NRRD's escapes in a value: \\n is a new line, \\\\ a backslash."""
    return re.sub(r"\\(n|\\)", lambda match: "\n" if match[1] == "n" else "\\", value)

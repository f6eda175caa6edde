"""What a parquet file of others may claim and hold, checked before pyarrow reads it.

The footer of a parquet file and the headers of its pages are structures of Thrift's compact protocol. pyarrow follows
them as they are: a footer of columns nested some thousands deep ends the process (its reader is recursive), and a page
of some kilobytes that decompresses to 2 GB is decompressed whole, whatever the footer says of it. So both are read here
first, as far as the limits need it; nothing is decompressed. The limits are far from what flow logs have.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ids_spark.lake.filesystem import resolve

LARGEST_FOOTER: Final = 16 << 20
"""Bytes of a footer: of 45 columns, that of 3,000 row groups. In memory it takes several times as much."""
MOST_COLUMNS: Final = 5_000
"""Columns; flow logs have about 50."""
LONGEST_NAME: Final = 1_024
"""Bytes of the name of a column, which messages and pages show."""
DEEPEST: Final = 32
"""Levels of nested columns; pyarrow's reader is recursive."""
MOST_ROW_GROUPS: Final = 20_000
"""Row groups, each of which is a unit of work."""
LARGEST_PAGE: Final = 64 << 20
"""Bytes of a page, decompressed. Writers make pages of 1 MB, some one of each row group: 8 MB for a million doubles."""
MOST_PAGES: Final = 100_000
"""Pages of a column in a row group."""
_MAGIC: Final = b"PAR1"
_SIGNATURE_BYTES: Final = 28  # after a footer that is plain although columns are encrypted: nonce and tag of AES-GCM
_TAIL: Final = 8  # length of the footer, and the magic bytes
_HEADER_BYTES: Final = 1 << 12  # of a page, read at once; statistics of long texts need more
_LARGEST_HEADER: Final = 1 << 20
_LARGEST_SPAN: Final = 256 << 20  # compressed bytes of a row group that are read at once from an object store
_SMALL_SPAN: Final = 1 << 20  # and from a local disk: less than to read each header
_INT, _BINARY, _LIST, _SET, _MAP, _STRUCT = 5, 8, 9, 10, 11, 12  # types of the compact protocol; integers of 32 bits


def _usual_header() -> re.Pattern[bytes]:
    """Return a pattern of those headers of pages that most files have, to read them several times as fast.

    By the compact protocol: three integers, of which the second and third are sizes below 2^27, then integers,
    booleans, up to 63 bytes (statistics) and structures of these. The first byte of each part says which it is, so
    there is one way to read it. Numbers of fields only rise: the long form, by which one may come twice, is not in it.
    """

    def heads(*kinds: int) -> bytes:
        return b"[%b]" % b"".join(b"\\x%02x" % (16 * step + kind) for step in range(1, 16) for kind in kinds)

    statistic = b"|".join(b"\\x%02x.{%d}" % (n, n) for n in (8, *range(8), *range(9, 64)))
    varint = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
    value = b"%b%b|%b|%b(?:%b)" % (heads(4, 5, 6), varint, heads(1, 2), heads(_BINARY), statistic)
    structure = rb"%b(?:%b)*+\x00" % (heads(_STRUCT), value)
    structure = rb"%b(?:%b|%b)*+\x00" % (heads(_STRUCT), value, structure)
    size = rb"\x15([\x80-\xff]{0,3}[\x00-\x7f])"
    return re.compile(rb"\x15%b%b%b(?:%b|%b)*+\x00" % (varint, size, size, value, structure), re.DOTALL)


_USUAL_HEADER: Final = _usual_header()


class BeyondLimits(ValueError):
    """Raised for a file that claims or holds more than the limits.

    Attributes:
        reason: Key of `files.REASONS`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return BeyondLimits, (self.reason, str(self))


def opened(stream: pa.NativeFile) -> pq.ParquetFile:
    """Return a file whose footer is within the limits, with columns that are not encrypted.

    pyarrow ends the process when it is asked for the metadata of an encrypted column without a key, also where the
    footer itself is plain and all else can be read. Such a footer is signed.

    Raises:
        BeyondLimits: it claims too much, or columns are encrypted.
        ValueError: it is not the footer of a parquet file.
        ArrowException, OSError: it cannot be read.
    """
    length = check_footer(stream)
    file = pq.ParquetFile(stream)
    if length - file.metadata.serialized_size == _SIGNATURE_BYTES:
        raise BeyondLimits("encrypted_parquet", "its footer is signed, so that columns are encrypted")
    return file


def check_footer(stream: pa.NativeFile) -> int:
    """Check the footer of a file, before pyarrow reads it; return its bytes.

    Raises:
        BeyondLimits: it claims too much.
        ValueError: it is not the footer of a parquet file.
    """
    size = stream.size()
    tail = bytes(stream.read_at(min(_TAIL, size), max(0, size - _TAIL)))
    if len(tail) < _TAIL or tail[4:] != _MAGIC:
        raise ValueError("it does not end as a parquet file does")
    length = int.from_bytes(tail[:4], "little")
    if length > LARGEST_FOOTER:
        raise BeyondLimits("too_large_footer", f"a footer of {length:,} bytes, expected at most {LARGEST_FOOTER:,}")
    if length > size - _TAIL:
        raise ValueError(f"its footer claims {length:,} bytes of {size:,}")
    try:
        _check_footer(_Compact(bytes(stream.read_at(length, size - _TAIL - length))))
    except IndexError:
        raise ValueError("its footer ends before its last value") from None
    return length


def check_pages(
    stream: pa.NativeFile, footer: pq.FileMetaData, row_group: int, columns: frozenset[str], local: bool
) -> None:
    """Check the size of each page of some columns of a row group, decompressed.

    Args:
        stream: The file.
        footer: Its footer.
        row_group: Number of the row group.
        columns: Names of columns at the top level.
        local: Whether the file is on a local disk, where many small reads cost little.

    Raises:
        BeyondLimits: a page is too large, or they are too many.
    """
    chunks = footer.row_group(row_group)
    found = [chunks.column(i) for i in range(chunks.num_columns)]
    spans = [
        (_start_of(chunk), chunk.total_compressed_size, path)
        for chunk, path in ((chunk, chunk.path_in_schema) for chunk in found)
        if path in columns or path.split(".", 1)[0] in columns
    ]
    if not spans:
        return
    base, end = min(start for start, _, _ in spans), max(start + size for start, size, _ in spans)
    source: Any = stream
    if not 0 <= base < end <= stream.size() or end - base > (_SMALL_SPAN if local else _LARGEST_SPAN):
        base = 0
    else:
        source = pa.BufferReader(stream.read_at(end - base, base))
    for start, size, name in spans:
        for page, unpacked in enumerate(_pages(source, start - base, size)):
            if unpacked > LARGEST_PAGE or page >= MOST_PAGES:
                raise BeyondLimits(
                    "too_large_page",
                    f"page {page:,} of column {name[:LONGEST_NAME]} of row group {row_group} has {unpacked:,} bytes,"
                    f" expected at most {LARGEST_PAGE:,} in at most {MOST_PAGES:,} pages",
                )


def check_row_group(uri: str, row_group: int, columns: Iterable[str]) -> None:
    """Check footer and pages, as `check_footer` and `check_pages`, of a file that is not open.

    Raises:
        BeyondLimits: it claims or holds too much, or is damaged.
        ArrowException, OSError: it cannot be read.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        try:
            check_pages(stream, opened(stream).metadata, row_group, frozenset(columns), is_local(fs))
        except ValueError as error:
            if isinstance(error, BeyondLimits | pa.ArrowException):
                raise
            raise BeyondLimits("unreadable_file", str(error)) from error


def is_local(fs: pafs.FileSystem) -> bool:
    """Return whether a file system is a local disk."""
    return isinstance(fs, pafs.LocalFileSystem)


def _check_footer(footer: "_Compact") -> None:
    """Check schema (field 2) and number of row groups (field 4) of `FileMetaData`, in the order that writers use."""
    has_schema = False
    for field, kind in footer.fields():
        if field == 2 and kind == _LIST:
            _check_schema(footer)
            has_schema = True
        elif field == 4 and kind == _LIST:
            groups, _ = footer.list_head()
            if groups > MOST_ROW_GROUPS:
                raise BeyondLimits(
                    "too_many_row_groups", f"{groups:,} row groups, expected at most {MOST_ROW_GROUPS:,}"
                )
            if has_schema:
                return
            raise ValueError("its footer has row groups before columns")
        else:
            footer.skip(kind)
    raise ValueError("its footer has no columns or no row groups")


def _check_schema(footer: "_Compact") -> None:
    count, kind = footer.list_head()
    if kind != _STRUCT:
        raise ValueError("its footer has no list of columns")
    if count > MOST_COLUMNS:
        raise BeyondLimits("too_many_columns", f"{count:,} columns, expected at most {MOST_COLUMNS:,}")
    open_: list[int] = []  # children that each column above still has to come
    for _ in range(count):
        children, name_bytes = 0, 0
        for field, of in footer.fields():
            if field == 4 and of == _BINARY:
                name_bytes = footer.skip(of)
            elif field == 5 and of == _INT:
                children = footer.number()
            else:
                footer.skip(of)
        if name_bytes > LONGEST_NAME:
            text = f"a column name of {name_bytes:,} bytes, expected at most {LONGEST_NAME:,}"
            raise BeyondLimits("too_long_name", text)
        if open_:
            open_[-1] -= 1
        if children > 0:
            open_.append(children)
        if len(open_) > DEEPEST:
            raise BeyondLimits("too_deep", f"columns nested more than {DEEPEST} levels deep")
        while open_ and open_[-1] <= 0:
            open_.pop()


def _start_of(chunk: Any) -> int:
    start: int = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None and chunk.dictionary_page_offset > 0:
        start = min(start, chunk.dictionary_page_offset)
    return start


def _pages(source: Any, start: int, size: int) -> Iterator[int]:
    """Yield the decompressed size of each page in `size` bytes from `start` on; a header that is damaged ends them.

    pyarrow cannot read on there either, but the rows before are read.
    """
    end = start + size
    while start < end:
        try:
            unpacked, packed, header = _page_header(source, start)
        except ValueError as error:
            if isinstance(error, BeyondLimits):
                raise
            return
        yield unpacked
        start += header + packed


def _page_header(source: Any, start: int) -> tuple[int, int, int]:
    """Return the decompressed size of a page, its stored size, and the size of its header."""
    for length in (_HEADER_BYTES, _LARGEST_HEADER):
        content = source.read_at(length, start)
        if (usual := _USUAL_HEADER.match(content)) is not None:
            return _size(usual[1]), _size(usual[2]), usual.end()
        try:
            return _sizes_of(_Compact(content))
        except IndexError:
            if len(content) < length:  # the end of the file
                raise ValueError("a header that ends with the file") from None
    raise BeyondLimits("too_large_page", f"the header of a page at byte {start:,} is larger than {_LARGEST_HEADER:,}")


def _size(varint: bytes) -> int:
    """Return an integer of the compact protocol; a negative one raises ValueError."""
    value = 0
    for i, byte in enumerate(varint):
        value |= (byte & 127) << 7 * i
    if value & 1:
        raise ValueError("a page with a negative size")
    return value >> 1


def _sizes_of(header: "_Compact") -> tuple[int, int, int]:
    """Return the sizes of a page; as in Thrift's own reader, a value of another type is skipped."""
    unpacked = packed = -1
    for field, kind in header.fields():
        if field == 2 and kind == _INT:
            unpacked = max(unpacked, header.number())
        elif field == 3 and kind == _INT:
            packed = header.number()
        else:
            header.skip(kind)
    if unpacked < 0 or packed < 0:
        raise ValueError("a page with a negative size or without one")
    return unpacked, packed, header.at


class _Compact:
    """Bytes of Thrift's compact protocol; reading beyond their end raises IndexError.

    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

    Attributes:
        at: Place of the next byte.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a structure; the caller reads or skips each value."""
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self.number()
            yield field, head & 15

    def number(self) -> int:
        """Return an integer of 16, 32 or 64 bits."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def list_head(self) -> tuple[int, int]:
        """Return number and type of the items of a list."""
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def skip(self, kind: int, levels: int = 0) -> int:
        """Skip a value; return its number of bytes if it is bytes, else 0.

        Raises:
            BeyondLimits: structures within structures that no parquet file has.
            ValueError: an unknown type.
        """
        if levels > DEEPEST:
            raise BeyondLimits("too_deep", f"structures nested more than {DEEPEST} levels deep")
        if kind in (1, 2):  # the type is the value
            return 0
        if kind == 3:
            self._to(self.at + 1)
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 7:
            self._to(self.at + 8)
        elif kind == _BINARY:
            length = self._varint()
            self._to(self.at + length)
            return length
        elif kind in (_LIST, _SET):
            count, of = self.list_head()
            for _ in range(count):
                self._item(of, levels)
        elif kind == _MAP:
            if count := self._varint():
                kinds = self._byte()
                for _ in range(count):
                    self._item(kinds >> 4, levels)
                    self._item(kinds & 15, levels)
        elif kind == _STRUCT:
            for _, of in self.fields():
                self.skip(of, levels + 1)
        else:
            raise ValueError(f"its footer has a value of the unknown type {kind}")
        return 0

    def _item(self, kind: int, levels: int) -> None:
        if kind in (1, 2):  # in a list, a boolean is a byte
            self._to(self.at + 1)
        else:
            self.skip(kind, levels + 1)

    def _to(self, at: int) -> None:
        if at > len(self._content):
            raise IndexError(at)
        self.at = at

    def _byte(self) -> int:
        value = self._content[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if not byte & 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

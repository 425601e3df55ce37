"""The walk through a local store before it is opened: every page, node and checksum.

    python store_check.py FILE          exit 0: sound; 1: damaged, and one line says how

LMDB trusts its file: a damaged one kills the process that reads it or, when the damage lies in the
free list or in the bounds of a page, the one that later writes. So this program runs as a child,
and reads the file itself instead of through LMDB: what it accepts, LMDB can work on. The layout is
LMDB 0.9's (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), data version 1; any other is reported as
damage and costs a rebuild. py-lmdb's own `lmdb.verify` asks the same at a third of the speed and
knows no checksums; tests hold this walk to it. Nothing of ours is imported, so a child starts fast.
"""

from __future__ import annotations

import sys
from mmap import ACCESS_READ, mmap
from operator import lt
from pathlib import Path
from struct import Struct, unpack_from
from struct import error as struct_error
from typing import Any, Final, Literal
from zlib import crc32

# All in the machine's own sizes and byte order, as LMDB writes them; `N` holds a page number.
#: Page: its number, a pad, its kind, and the bounds of its free space: where the directory of
#: nodes ends and where the nodes begin. On an overflow page the two bounds are one count of pages.
_PAGE = Struct("@NHHHH")
_OVERFLOWS = Struct("@NHHI")
#: So many times the file's own pages may be named at the most.
_SPARE = 64
#: Meta page: magic, version, map address, map size; two trees (free list, main); last page, txn.
_META = Struct("@IIPN")
_META_END = Struct("@NN")
#: Tree: a pad (in the free list's, the page size), flags, depth, branch, leaf and overflow pages,
#: entries, root page.
_TREE = Struct("@IHHNNNNN")
#: Node: the value's size in two halves, flags, the key's size; key and value follow. On a branch
#: the first three are the child's page number.
_NODE = Struct("@HHHH")
_NUMBER = Struct("@N")

_MAGIC, _VERSION, _NO_PAGE = 0xBEEFC0DE, 1, 2 ** (8 * _NUMBER.size) - 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_ON_OVERFLOW, _IS_TREE = 0x01, 0x02
_INTEGER_KEYS = 0x08
_MAX_KEY, _MAX_DEPTH = 511, 32
#: CRC-32 of anything that has its own CRC-32 (little-endian) behind it.
_RESIDUE = 0x2144DF1C


class Damaged(Exception):
    """The file is not what LMDB and the store wrote."""


def need(condition: bool, what: str) -> None:
    """Raise Damaged, saying `what`, unless `condition`."""
    if not condition:
        raise Damaged(what)


#: The one tree beside the main one.
ENTRIES: Final = b"entries"
#: Of a leaf: its bytes, or in the free list a transaction's number.
Key = Any
Kind = Literal["main", "free", "entries"]


class Snapshot:
    """The newest snapshot in a data file, and which of its pages have been met."""

    def __init__(self, data: bytes | mmap) -> None:
        self.data = data
        first = self._meta(0, 0)
        self.page_size = first[0]
        second = self._meta(1, self.page_size)
        need(first[0] == second[0], "the meta pages disagree on the page size")
        # As LMDB picks: the later transaction. Even ones go to page 0, odd ones to page 1.
        need(first[4] % 2 == 0, "meta page 0 holds an odd transaction")
        need(second[4] % 2 == 1 or second[4] == 0, "meta page 1 holds an even transaction")
        _, self.free, self.main, last, _ = max(first, second, key=lambda meta: meta[4])
        # The file may end before the last page: one that was taken and freed within a transaction
        # was never written. The bound only keeps a wrong number from asking for all memory.
        pages = len(data) // self.page_size
        need(1 <= last < _SPARE * pages, f"last page {last} is out of range")
        self._met = bytearray(last + 1)
        self._met[0:2] = b"\1\1"

    def _meta(self, number: int, at: int) -> tuple[int, bytes, bytes, int, int]:
        """Page size, free list, main tree, last page and transaction of a meta page."""
        own, _, kind, _, _ = _PAGE.unpack_from(self.data, at)
        at += _PAGE.size
        magic, version, _, _ = _META.unpack_from(self.data, at)
        at += _META.size
        free = self.data[at : at + _TREE.size]
        at += _TREE.size
        main = self.data[at : at + _TREE.size]
        last, transaction = _META_END.unpack_from(self.data, at + _TREE.size)
        need((own, kind, magic) == (number, _META_PAGE, _MAGIC), f"page {number} is no meta page")
        need(version == _VERSION, f"LMDB data version {version}")
        size = _TREE.unpack(free)[0]
        need(size in (512 << n for n in range(7)), f"page size {size}")
        return size, free, main, last, transaction

    def take(self, number: int) -> None:
        """Meet a page: each has exactly one place."""
        need(2 <= number < len(self._met), f"page number {number} is out of range")
        need(not self._met[number], f"page {number} has two places")
        self._met[number] = 1

    def page(self, number: int) -> bytes:
        """Take and read one page."""
        self.take(number)
        need((number + 1) * self.page_size <= len(self.data), f"page {number} is not in the file")
        return self.data[number * self.page_size : (number + 1) * self.page_size]

    def overflow(self, number: int, size: int) -> tuple[bytes, int]:
        """Take the run of pages that holds a value of `size` bytes; the value, and their count."""
        self.take(number)
        at = number * self.page_size
        own, _, kind, count = _OVERFLOWS.unpack_from(self.data, at)
        need((own, kind) == (number, _OVERFLOW), f"page {number} is no overflow page")
        need(size <= count * self.page_size - _PAGE.size, f"overflow {number} is too short")
        need((number + count) * self.page_size <= len(self.data), f"overflow {number} is cut short")
        for page in range(number + 1, number + count):
            self.take(page)
        at += _PAGE.size
        return self.data[at : at + size], count

    def walk(self) -> None:
        """Meet every page, in the main tree, in a tree named there, or in the free list."""
        main = Tree(self, self.main, "main")
        Tree(self, self.free, "free")
        for record in main.named:
            Tree(self, record, "entries")
        lost = self._met.find(0)
        need(lost < 0, f"page {lost} is neither used nor free")


class Tree:
    """One pass over one tree, whose record counts what the pass must find."""

    def __init__(self, snapshot: Snapshot, record: bytes, kind: Kind) -> None:
        pad, flags, depth, branches, leaves, overflows, entries, root = _TREE.unpack(record)
        self._snapshot = snapshot
        self._is_free_list = kind == "free"
        #: What a node's flags may say beside _ON_OVERFLOW.
        self._flags = (0, _IS_TREE) if kind == "main" else (0,)
        need(flags == (_INTEGER_KEYS if self._is_free_list else 0), f"tree flags {flags:#x}")
        need(self._is_free_list or pad == 0, f"tree pad {pad}")
        self._last: Key | None = None
        self._branches = self._leaves = self._overflows = self._entries = 0
        #: Records of the trees that this one names.
        self.named: list[bytes] = []
        need(depth <= _MAX_DEPTH and (depth > 0) == (root != _NO_PAGE), f"tree depth {depth}")
        if root != _NO_PAGE:
            self._descend(root, depth, None)
        found = (self._branches, self._leaves, self._overflows, self._entries)
        need(found == (branches, leaves, overflows, entries), f"tree counts {found}")

    def _descend(self, number: int, depth: int, least: Key | None) -> None:
        """The page `number`, `depth` levels above nothing; no key in it is below `least`."""
        page = self._snapshot.page(number)
        own, _, kind, lower, upper = _PAGE.unpack_from(page)
        need(own == number, f"page {number} says it is {own}")
        need(kind == (_LEAF if depth == 1 else _BRANCH), f"page {number} has kind {kind:#x}")
        size = len(page)
        need(_PAGE.size < lower <= upper < size and lower % 2 == 0, f"bounds of page {number}")
        places = unpack_from(f"@{(lower - _PAGE.size) // 2}H", page, _PAGE.size)
        if depth > 1:
            children, keys, ends = self._branch(page, places)
        else:
            keys, ends = self._leaf(page, places)
        # Nodes fill the page from `upper` to its end, each beginning at an even place.
        edges = [upper, *sorted([end + 1 & ~1 for end in ends])]
        need([*sorted(places), size] == edges, f"nodes of page {number} overlap or leave gaps")
        if depth > 1:
            self._branches += 1
            for child, key in zip(children, [least, *keys[1:]], strict=True):
                need(key is None or self._last is None or self._last < key, f"order, page {number}")
                self._descend(child, depth - 1, key)
            return
        self._leaves += 1
        self._entries += len(keys)
        need(least is None or least <= keys[0], f"page {number} begins too low")
        need(all(map(lt, keys, keys[1:])), f"keys of page {number} are out of order")
        self._last = keys[-1]

    def _branch(
        self, page: bytes, places: tuple[int, ...]
    ) -> tuple[list[int], list[Key], list[int]]:
        """Children, the least key of each (but the first's), and where each node ends."""
        children: list[int] = []
        keys: list[Key] = []
        ends: list[int] = []
        for place in places:
            low, middle, high, key_size = _NODE.unpack_from(page, place)
            need(key_size <= _MAX_KEY, f"key of {key_size} bytes")
            begin = place + _NODE.size
            children.append(low | middle << 16 | high << 32)
            keys.append(self._key(page[begin : begin + key_size]) if keys else None)
            ends.append(begin + key_size)
        return children, keys, ends

    def _key(self, key: bytes) -> Key:
        return _NUMBER.unpack(key)[0] if self._is_free_list else key

    def _leaf(self, page: bytes, places: tuple[int, ...]) -> tuple[list[Key], list[int]]:
        """Keys, and where each node ends; every value verified. The hot loop of the walk."""
        keys: list[Key] = []
        ends: list[int] = []
        node, check = _NODE.unpack_from, not self._is_free_list
        for place in places:
            size, size_high, flags, key_size = node(page, place)
            begin = place + 8
            key = page[begin : begin + key_size]
            end = begin + key_size + size
            if check and flags == 0 == size_high:
                if crc32(page[begin:end]) != _RESIDUE:
                    raise Damaged(f"wrong checksum at key {key[:40]!r}")
            else:
                end = self._rare(page, key, begin + key_size, size | size_high << 16, flags)
                if not check:
                    key = self._key(key)
            keys.append(key)
            ends.append(end)
        return keys, ends

    def _rare(self, page: bytes, key: bytes, at: int, size: int, flags: int) -> int:
        """A value that is not in the page, a tree, or of the free list; where its node ends."""
        if flags == _ON_OVERFLOW:
            number = _NUMBER.unpack_from(page, at)[0]
            value, pages = self._snapshot.overflow(number, size)
            self._overflows += pages
            at += _NUMBER.size
        else:
            need(flags in self._flags, f"node flags {flags:#x}")
            value = page[at : at + size]
            at += size
        if self._is_free_list:
            self._free_pages(value)
        elif flags == _IS_TREE:
            need(key == ENTRIES, f"a tree of the name {key!r}")
            self.named.append(value)
        else:
            need(crc32(value, crc32(key)) == _RESIDUE, f"wrong checksum at key {key[:40]!r}")
        return at

    def _free_pages(self, value: bytes) -> None:
        """A list of free pages: their count, then their numbers, falling."""
        count = _NUMBER.unpack_from(value)[0]
        need((count + 1) * _NUMBER.size == len(value), "a free list has a wrong size")
        pages = unpack_from(f"@{count}N", value, _NUMBER.size)
        need(all(map(lt, pages[1:], pages)), "a free list is out of order")
        for page in pages:
            self._snapshot.take(page)


def damage(data: bytes | mmap) -> str | None:
    """What is wrong with a data file's bytes; None when they are sound."""
    try:
        Snapshot(data).walk()
    except (Damaged, struct_error, ValueError, OverflowError) as error:
        return str(error)
    return None


def main() -> int:
    """The child's whole life."""
    with Path(sys.argv[1]).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        found = damage(data)
    if found:
        sys.stdout.write(found + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""A compound file (OLE), as Zeiss scanners write it: streams by their path, each at least 4096 bytes long."""

import struct

import numpy as np

SECTOR = 512
FREE, END, FAT_SECTOR, NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFF


def write_cfb(path, streams):
    """Write streams, bytes by a path such as ``ImageInfo/Angles``; what is short is filled with zeros."""
    tree = {}
    for name, content in streams.items():
        *folders, last = name.split("/")
        inside = tree
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[last] = content.ljust(4096, b"\0")
    entries, body = [], []

    def add(name, kind, content=None):
        entries.append([name, kind, NONE, NONE, END, 0])  # name, kind, next, first child, sector, size
        if content is not None:
            entries[-1][4:] = [sum(map(len, body)) // SECTOR, len(content)]
            body.append(content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0"))
        return len(entries) - 1

    def walk(folder, parent):
        before = None
        for name, value in folder.items():
            number = add(name, 1) if isinstance(value, dict) else add(name, 2, value)
            if before is None:
                entries[parent][3] = number
            else:
                entries[before][2] = number
            before = number
            if isinstance(value, dict):
                walk(value, number)

    add("Root Entry", 5)
    walk(tree, 0)
    chain = []
    for content in body:
        n = len(content) // SECTOR
        chain += [len(chain) + 1 + step for step in range(n - 1)] + [END]
    listing = b"".join(map(_entry, entries))
    listing = listing.ljust(-(-len(listing) // SECTOR) * SECTOR, b"\0")
    first_entry, n_listing = len(chain), len(listing) // SECTOR
    chain += [first_entry + 1 + step for step in range(n_listing - 1)] + [END]
    n_fat = 1
    while n_fat * 128 < len(chain) + n_fat:
        n_fat += 1
    assert n_fat <= 109
    fat = np.full(n_fat * 128, FREE, "<u4")
    fat[: len(chain)] = chain
    first_fat = len(chain)
    fat[first_fat : first_fat + n_fat] = FAT_SECTOR
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack(
        "<HHHHH6xIIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, n_fat, first_entry, 0, 4096, END, 0, END, 0, 0
    )[:-4]
    table = np.full(109, FREE, "<u4")
    table[:n_fat] = first_fat + np.arange(n_fat)
    path.write_bytes(header + table.tobytes() + b"".join(body) + listing + fat.tobytes())
    return path


def _entry(entry):
    name, kind, following, child, sector, size = entry
    text = name.encode("utf-16-le") + b"\0\0"
    head = text.ljust(64, b"\0") + struct.pack("<HBBIII", len(text), kind, 1, NONE, following, child)
    return head + bytes(16 + 4 + 16) + struct.pack("<IQ", sector, size)

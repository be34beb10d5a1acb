"""Files as FEI TIA writes them, for tests: .ser series, and the .emi with the settings of each."""

import struct
from pathlib import Path

import numpy as np

TYPES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9, "c16": 10}
IMAGE = np.random.default_rng(0).integers(2**16, size=(20, 30)).astype(np.uint16)
SERIES = np.stack([IMAGE // n for n in range(1, 6)])
SETTINGS = {
    "Microscope": "Microscope Titan 300 kV D3000 S-Twin",
    "High tension kV": "300",
    "Mode": " STEM nP SA Zoom Diffraction",
    "Camera length m": "0.115",
    "Emission uA": "120.0",
}
TIME = 1456073586  # 16:53:06 on 21 February 2016 in UTC, an hour later at the microscope
DATE = "Sun Feb 21 17:53:06 2016"


def write_ser(
    path, data=IMAGE, *, delta=2e-11, version=0x0210, sizes=None, unit=b"", valid=None, kind=0x4122, tag=0x4152
):
    """Write images (n, h, w), one image (h, w) or, of the kind 0x4120, spectra (n, length) as a .ser file.

    `sizes` are the dimensions of the series; `valid` tells how many of its elements were recorded.
    """
    elements = data if data.ndim == 3 or kind == 0x4120 else data[None]
    valid = len(elements) if valid is None else valid
    sizes = [len(elements)] if sizes is None else sizes
    word, total = "I" if version == 0x0210 else "Q", int(np.prod(sizes))
    head = struct.pack("<HHHIIII", 0x4949, 0x0197, version, kind, tag, total, valid)
    dimensions = b"".join(
        struct.pack("<IddII", size, 0.0, 1.0, 0, 6) + b"Number" + struct.pack("<I", len(unit)) + unit for size in sizes
    )
    array = len(head) + struct.calcsize(f"<{word}I") + len(dimensions)
    at, body, offsets, tags = array + 2 * total * struct.calcsize(f"<{word}"), b"", [], []
    for number in range(valid):
        offsets.append(at + len(body))
        code = TYPES[data.dtype.str[1:]]
        if kind == 0x4120:
            body += struct.pack("<ddIHI", 0.0, 1.0, 0, code, elements.shape[1]) + elements[number].tobytes()
        else:
            rows, columns = elements.shape[1:]
            body += struct.pack("<ddIddIHII", 0.0, delta, 0, 0.0, delta, 0, code, columns, rows)
            body += elements[number][::-1].tobytes()  # TIA stores the bottom row first
        tags.append(at + len(body))
        body += struct.pack("<HHI", tag, 0, TIME + number) + (struct.pack("<dd", number, 0) if tag == 0x4142 else b"")
    blank = [0] * (total - valid)
    index = struct.pack(f"<{2 * total}{word}", *offsets, *blank, *tags, *blank)
    Path(path).write_bytes(head + struct.pack(f"<{word}I", array, len(sizes)) + dimensions + index + body)
    return Path(path)


def settings(dwell_time="0.000010", camera=None, date=DATE, **changes):
    """The element ObjectInfo of one image; `changes` replace SETTINGS (underscores for blanks), None removes one."""
    described = {
        k: v for k, v in (SETTINGS | {k.replace("_", " "): v for k, v in changes.items()}).items() if v is not None
    }
    entries = ""
    for key, value in described.items():
        label, _, unit = key.rpartition(" ") if key.split()[-1] in ("kV", "m", "uA") else (key, "", "")
        entries += f"<Data><Label>{label}</Label><Value>{value}</Value><Unit>{unit}</Unit></Data>"
    acquired = "" if dwell_time is None else f"<DwellTimePath>{dwell_time}</DwellTimePath>"
    acquired += f"<CameraNamePath>{camera}</CameraNamePath>" if camera else "<FrameTime>0.01</FrameTime>"
    return (
        f"<ObjectInfo><Uuid>0</Uuid><ExperimentalDescription><Root>{entries}</Root>\r\n</ExperimentalDescription>"
        f"<AcquireDate>{date}</AcquireDate><AcquireInfo>{acquired}</AcquireInfo></ObjectInfo>"
    )


def write_emi(path, *objects, numbers=None, titles=("Acquire BF", "Acquire DF4")):
    """Write an .emi file with the elements `objects`, of the .ser files with the `numbers` (1, 2 ... by default)."""
    path = Path(path)
    data = b"JK\0\2\0\0\0\0\4M\1\0"
    numbers = range(1, len(objects) + 1) if numbers is None else numbers
    for number, text in zip(numbers, objects, strict=True):
        title = titles[(number - 1) % len(titles)]
        for mark, held in (
            (b"`\0\0\1", f"{title} Scanning Display1"),
            (b"`\0@\4", f"F:\\a_7.ser\\{path.stem}_{number}.ser"),
            (b"2\0B\4\2\0`\0\x19\4", text),
        ):
            data += mark + struct.pack("<I", len(held)) + held.encode()
        data += b"\r\n`\0\0\5\6\0\0\0Normalp\0"
        data += f"\0{title} Scanning Display1".encode()  # again, as TIA does
    path.write_bytes(data)
    return path

"""Gatan .dm3/.dm4: where DigitalMicrograph keeps one image's settings in ``original_metadata``.

These files know pixel size, dwell time, voltage and camera length. The probe current is 0 in every STEM file
met, and convergence angle, detector gain, offset and collection angles have no place in the format at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .record import LENGTHS, Evidence, RawValue, lookup, number

__all__ = ["look_up", "recognises"]

# Channels bear any name, "Signal 0" included; one with these letters tells the detector (HAADF, ADF, ABF, SEI ...).
_DETECTOR = re.compile(r"DF|BF|\bSEI?\b")
_NOWHERE = "DigitalMicrograph does not record it"


def recognises(tree: Any) -> bool:
    """Whether `tree`, an ``original_metadata`` dict, was written by DigitalMicrograph."""
    return isinstance(lookup(tree, "ImageList"), Mapping)


def look_up(tree: Mapping) -> Evidence:
    """Evidence on one DigitalMicrograph image from its ``original_metadata`` dict."""
    found = Evidence("gatan")
    group = next((k for k, v in tree["ImageList"].items() if isinstance(lookup(v, "ImageTags"), Mapping)), "TagGroup0")
    image = f"ImageList.{group}."
    tags_key = f"{image}ImageTags."
    tags = lookup(tree, tags_key[:-1], {})
    # StackBuilder moves the tags of the frames it stacks one branch further.
    if not isinstance(lookup(tags, "Microscope Info"), Mapping):
        moved = lookup(tags, "source.Tags at creation")
        if isinstance(moved, Mapping):
            tags, tags_key = moved, f"{tags_key}source.Tags at creation."

    found.add("dwell_time", tags, "DigiScan.Sample Time", "s", 1e-6, tags_key)
    found.add("beam_current", tags, "Microscope Info.Probe Current (nA)", "A", 1e-9, tags_key)
    found.add("voltage", tags, "Microscope Info.Voltage", "V", 1.0, tags_key)
    found.add("camera_length", tags, "Microscope Info.STEM Camera Length", "m", 1e-3, tags_key)
    _pixel_size(tree, f"{image}ImageData.Calibrations.Dimension.TagGroup0", found)

    found.absent.setdefault("dwell_time", "no DigiScan tags: the file does not say how it was scanned")
    found.absent.setdefault("beam_current", "no Microscope Info tags")
    for name in ("convergence_angle", "detector_gain", "detector_offset", "inner_collection_angle"):
        found.absent[name] = _NOWHERE

    channel = lookup(tags, "DataBar.Signal Name")  # not the title, which is free text
    if isinstance(channel, str) and _DETECTOR.search(channel):
        found.detector = channel.strip()
    elif isinstance(channel, str) and channel.strip():
        found.notes.append(f"the DigiScan channel is called {channel.strip()!r}")
    found.microscope = next(
        (
            n
            for n in (lookup(tags, "Session Info.Microscope"), lookup(tags, "Microscope Info.Name"))
            if isinstance(n, str) and n
        ),
        None,
    )
    if found.microscope == "Unknown":
        found.microscope = None
        found.notes.append("DigitalMicrograph was not connected to the microscope: the voltage may be its default")
        found.trusted_camera_length = False
    found.refusal = _refusal(tags, found)
    return found


def _pixel_size(tree: Mapping, x_axis: str, found: Evidence) -> None:
    scale, unit = number(lookup(tree, f"{x_axis}.Scale")), lookup(tree, f"{x_axis}.Units")
    if scale is None:
        found.absent["pixel_size"] = "the axes have no calibration"
        return
    said = unit if isinstance(unit, str) else ""
    metres = LENGTHS.get(said.strip().lower().replace("μ", "µ"))
    # An axis without a unit has scale 1 or any other number: a count of pixels, not a length.
    key = f"{x_axis}.Scale"
    found.raw["pixel_size"] = RawValue(scale, key, said) if metres is None else RawValue(scale * metres, key, "m")


def _refusal(tags: Mapping, found: Evidence) -> str | None:
    mode = lookup(tags, "Microscope Info.Illumination Mode")
    scanned = isinstance(lookup(tags, "DigiScan"), Mapping)
    device = lookup(tags, "Acquisition.Device.Name") or lookup(tags, "DataBar.Device Name")
    signal = lookup(tags, "Meta Data.Signal")
    if isinstance(signal, str) and signal.upper() in ("EELS", "X-RAY", "CL"):
        return f"a map of {signal}"
    if not scanned and isinstance(lookup(tags, "Acquisition"), Mapping):
        return f"an image of the camera {device or 'of this microscope'}, not a scanned image"
    if not scanned and isinstance(mode, str) and mode and "STEM" not in mode.upper():
        return f"an image taken in {mode} mode"
    if not scanned and mode is None:
        found.notes.append("the file does not say that this is a STEM image; nothing in it says otherwise")
    return None

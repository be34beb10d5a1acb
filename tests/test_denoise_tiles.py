"""Tiles: no seams, any size, bounded memory, any dtype."""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
from denoise_methods import Adapted, Blur
from hypothesis import given, settings
from hypothesis import strategies as st

import cimp_core as cimp
from cimp_core.denoising.tiles import BLEND, TILE, cast, denoise_frame, read_rows, spans
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import Acquisition


def apply(frame, method, tile, dtype=np.float32):
    out = np.empty(frame.shape, dtype)
    deviation = denoise_frame(read_rows(frame), method, Acquisition(), 16.0, out, tile=tile)
    return out, deviation


def picture(shape, seed=0):
    return np.random.default_rng(seed).poisson(40, shape).astype(np.float32) * 25


@given(size=st.integers(32, 9000), margin=st.integers(0, 80), tile=st.integers(64, 512))
@settings(max_examples=200, deadline=None)
def test_weights_sum_to_exactly_one_at_every_pixel(size, margin, tile):
    total, times = np.zeros(size, np.float32), np.zeros(size, int)
    for span in spans(size, margin, tile):
        total[slice(*span.give)] += span.weight
        times[slice(*span.give)] += 1
        assert 0 <= span.read[0] <= span.give[0] and span.give[1] <= span.read[1] <= size
        assert span.read[1] - span.read[0] <= tile + BLEND + 2 * margin
        # every pixel that is given has its margin, but at the frame's own border
        assert span.read[0] == max(0, span.give[0] - margin) and span.read[1] == min(size, span.give[1] + margin)
        assert span.weight.min() > 0
    assert np.all(total == 1) and times.max() <= 2


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (64, 300), (257, 255), (511, 130), (700, 613)])
def test_tiles_give_what_one_large_tile_gives(shape):
    frame = picture(shape)
    whole, flat = apply(frame, Blur(), 1024)
    tiled, deviation = apply(frame, Blur(), 64)
    assert np.abs(tiled - whole).max() < 1e-4 * 1000
    np.testing.assert_allclose(deviation, 3.0, rtol=1e-6)
    assert flat.shape == shape


def test_seams_are_no_worse_than_the_rest_where_a_method_sees_further_than_its_margin():
    class Leaky(Blur):
        def __init__(self):
            super().__init__(6.0)
            self.margin = 8

    frame = picture((400, 400))
    whole, _ = apply(frame, Blur(6.0), 1024)
    tiled, _ = apply(frame, Leaky(), 100)
    step = np.abs(np.diff(tiled - whole, axis=1))
    seams = np.zeros(399, bool)
    for edge in (100, 200, 300):
        seams[edge - BLEND : edge + BLEND] = True
    smooth = np.abs(np.diff(whole, axis=1))
    # What tiles add from pixel to pixel is far below what the picture itself changes by.
    assert step[:, seams].mean() < 0.05 * smooth.mean()


def test_a_method_that_adapts_sees_the_whole_frame_once():
    method = Adapted()
    out = cimp.denoise(picture((200, 210)), method=method, tile=64, settings="ignore")
    assert method.seen == (200, 210) and len(method.calls) == 16 and out.image.data.shape == (200, 210)


def test_progress_ends_at_the_total():
    seen = []
    with pytest.warns(UserWarning):
        cimp.denoise(picture((300, 100)), method=Blur(), tile=100, progress=lambda *a: seen.append(a))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int32"])
def test_integers_are_rounded_and_clipped(dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min - 1e6, 0.4, 0.6, 100.5001, limits.max + 1e6])
    assert cast(values, np.dtype(dtype)).tolist() == [limits.min, 0, 1, 101, limits.max]


def test_a_lazy_frame_is_read_by_rows_and_memory_stays_bounded():
    rows, columns, asked = 8192, 2048, []

    def block(block_info=None):
        first = block_info[None]["array-location"][0][0]
        asked.append(first)
        return np.full((128, columns), first, np.float32)

    frame = da.map_blocks(block, chunks=((128,) * 64, (columns,)), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    out = np.empty((rows, columns), np.float32)
    method = Blur(deviation=False)
    frame[:1].compute()  # what dask imports is no part of it
    tracemalloc.start()
    denoise_frame(read_rows(frame), method, Acquisition(), 16.0, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = (TILE + BLEND + 2 * method.margin) * columns * 4
    # The rows of a strip, what dask joins them from, its sum, the rows carried over: never the frame, of 67 MB.
    assert peak < 6 * held < rows * columns * 4 / 2
    assert min(asked) == 0 and max(asked) == rows - 128


def test_memory_of_a_large_float_image_is_the_result_and_a_few_rows_of_tiles():
    frame = picture((2048, 2048))
    frame_bytes = frame.nbytes
    tracemalloc.start()
    with pytest.warns(UserWarning):
        cimp.denoise(frame, method=Blur(deviation=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * frame_bytes


def test_impossible_tiles_are_refused():
    with pytest.raises(OutOfRangeError, match="at least 64"):
        spans(500, 10, 20)
    with pytest.raises(OutOfRangeError, match="margin"):
        spans(500, -1, 256)

"""The second look in a library, by the learnt embedding of its patterns."""

import numpy as np
import pytest

from cimp_core.structures import embedded, embedding, matching, polar, spectrum_map
from cimp_core.structures.lattice_lines import RATIO_FLOOR
from cimp_core.structures.library import library
from cimp_core.structures.views import View, collected, recorded


@pytest.fixture(scope="module")
def known():
    return library(["crystals"], zones=1)


def test_lines_of_a_pattern_are_those_of_its_image(known):
    for entry in list(known)[::5]:
        view = View(0.2, 160, 160, angle=0.4, shift=(3.0, -2.0))
        image = recorded(collected(entry.pattern, view), 2e5, np.random.default_rng(0))
        seen = spectrum_map.spectrum_map(image, 0.2).lines
        told = embedded.pattern_lines(entry.pattern)
        strong = told[told[:, 1] > np.nanmax(told[:, 1]) - 2.5]
        for line in strong:
            near = seen[np.abs(seen[:, 0] - line[0]) < 2e-4]
            # Several reflections may have one length; one of them is this one.
            off = np.abs(near[:, [1, 3, 4, 5]] - line[[1, 3, 4, 5]]).max(1)
            assert len(off) and off.min() < 0.15
    assert (told[np.isfinite(told[:, 0])][:, 3:6] >= np.log(RATIO_FLOOR) - 1e-6).all()


def test_a_narrow_model_sees_as_the_whole_one(known):
    patterns, wide = [entry.pattern for entry in known], embedding.load()
    rows, whole = embedded.rows_of(patterns), embedded.embed_patterns(wide, patterns)
    assert rows.shape == (len(patterns), 2 * embedded.WAVES) and rows.dtype == np.float32
    difference = rows.astype(float) @ rows.astype(float).T - whole @ whole.T
    assert np.sqrt((difference**2).mean()) < 0.02


def test_images_of_entries_find_them_where_lengths_are_known(known, monkeypatch):
    rng, rows, place = np.random.default_rng(1), embedded.rows_of([entry.pattern for entry in known]), []
    for truth in range(0, len(known), 3):
        view = View(0.2, 128, 128, angle=rng.uniform(0, 6), shift=tuple(rng.uniform(-5, 5, 2)))
        image = recorded(collected(known[truth].pattern, view), 50.0, rng)
        alike = embedded.likenesses(rows, image, 0.2, 0.003)
        place.append((alike > alike[truth]).sum())
    assert np.mean(np.array(place) < 3) > 0.9
    mapped = polar.of_image(image, 0.2)
    np.testing.assert_array_equal(matching.likenesses(image, 0.2, known, 0.003), alike)
    looked = matching.second_look(mapped, known, 0.003, alike)
    assert truth in [number for number, _ in looked] and len(looked) <= matching.SECOND
    assert truth not in [n for n, _ in matching.second_look(mapped, known, 0.003, alike, without=[truth])]
    assert (
        matching.likenesses(image, 0.2, known, 0.05) is None and matching.second_look(mapped, known, 0.05, None) == []
    )
    found, _, _ = matching.candidates(image, 0.2, known, 0.003)
    assert found[0].number == truth and found[0].likeness == pytest.approx(float(alike[truth]))
    assert all(c.likeness is None for c in matching.candidates(image, 0.2, known, 0.05)[0])
    monkeypatch.setattr(matching, "rolled", lambda *_: [])  # what polar maps miss, the second look brings
    assert matching.candidates(image, 0.2, known, 0.003)[0][0].number == truth
    assert matching.candidates(image, 0.2, known, 0.05)[0] == []

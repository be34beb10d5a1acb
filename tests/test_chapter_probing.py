"""The chapter on probing on a file of the published schema that lacks some settings: it says what it cannot tell."""

import re

from test_chapters_real_schema import run, sound, stop  # noqa: F401 - sound is a fixture

from cimp_core.metadata import PARAMETERS


def test_probing_on_a_real_file(sound, tmp_path):  # noqa: F811
    text = run("04_probing", tmp_path, data=str(sound), profile="full")
    assert "0 committed results for twin version None" in text and "0 committed endpoints" in text
    assert "measured here: linear probe, nearest five, statistics" in text
    for name in PARAMETERS:
        # Missing everywhere, or constant in the one session that is held out.
        unknown = name not in ("pixel_size", "dwell_time", "detector_gain")
        assert bool(re.search(rf"R² of {name} +nan \[nan, nan\]", text)) == unknown, name
    assert re.search(r"offset +nothing to probe", text) and re.search(r"dwell time +half are within \d+ %: ", text)
    assert re.search(r"endpoints met \(committed\) +none committed", text)


def test_a_data_set_of_one_session_stops_where_it_is_opened(tmp_path):
    from real_schema_files import IMAGES, settings, write_real

    names = [f"D:\\Titan\\one day\\{i}.emd" for i in range(2 * IMAGES)]
    file = write_real(tmp_path / "a.h5", raw=settings(2), names=names)
    error = stop("04_probing", tmp_path, data=str(file), profile="smoke")
    assert error.startswith("OutOfRangeError") and "split by session into 3 parts" in error

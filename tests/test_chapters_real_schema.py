"""The chapters on files of the published schema: they run on a sound one, and stop at once, saying why, on others."""

import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from real_schema_files import IMAGES, settings, write_real

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
LISTED = [Path(entry["file"]) for part in TOC["parts"] for entry in part["chapters"]]
CHAPTERS = [name.stem for name in LISTED if name.parent.name == "notebooks"]
BY_NAME = ("00_quickstart", "01_data_and_twin", "02_pretraining")  # those with a test of their own
COMPARE = ("05_style_transfer", "06_denoising")  # with the same area under other settings, which no file has
OPENING = "open_dataset(data)"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Two sizes of image; convergence angle constant, beam current missing in some, offset in all images."""
    raw = settings()
    raw[::5, 3], raw[:, 5] = np.nan, np.nan
    return write_real(tmp_path_factory.mktemp("sound") / "CMMP small.h5", raw=raw)


def run(chapter, tmp_path, **parameters):
    """Execute a chapter; return all that it printed and showed, and the sources of its cells that ran."""
    out = tmp_path / f"{chapter}.ipynb"
    try:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{chapter}.ipynb"),
            str(out),
            parameters=parameters,
            kernel_name="python3",
            cwd=str(NOTEBOOKS),
            progress_bar=False,
        )
    finally:
        cells = [cell for cell in nbformat.read(out, as_version=4).cells if cell.cell_type == "code"]
        texts = []
        for output in (o for cell in cells for o in cell.get("outputs", [])):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
        run.text, run.ran = "\n".join(texts), [c.source for c in cells if c.execution_count and c.outputs]
    return run.text


def stop(chapter, tmp_path, **parameters):
    """Execute a chapter that must fail in the cell that opens the data; return its error as papermill shows it."""
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        run(chapter, tmp_path, **parameters)
    assert OPENING in run.ran[-1], run.ran[-1]
    return f"{caught.value.ename}: {caught.value.evalue}"


def test_quickstart_compares_with_a_real_file(sound, tmp_path):
    text = run("00_quickstart", tmp_path, data=str(sound), profile="full")
    assert "96 images of CMMP small.h5, 12 sessions" in text
    assert "nearest image of the library" in text and "data set CMMP small.h5" in text


def test_data_chapter_on_a_real_file(sound, tmp_path):
    text = run("01_data_and_twin", tmp_path, data=str(sound), profile="full")
    assert "96 images, 12 sessions" in text and "none, this is no twin" in text
    assert "no truth in this data set" in text  # and it went on with the twin's
    assert "no fault" in text and "32 rows in the data set" in text
    assert re.search(r"images +96\n", text) and re.search(r"split by session +0%", text)


def test_pretraining_on_a_real_file(sound, tmp_path):
    text = run("02_pretraining", tmp_path, data=str(sound), profile="full", samples=256)
    assert re.search(r"256 crops, 3 of each image, on .*\nexpect about \d+\.\d minutes", text)
    assert re.search(r"train +80 images, +10 sessions", text)
    assert "0% of the training images share their settings" in text
    assert re.search(r"hidden: \d+\.\d% of the settings, absolute intensity of \d+\.\d% of the crops", text)
    assert re.search(r"trained here +256 crops", text) and re.search(r"among distinct settings +8\b", text)
    assert re.search(r"no masking +-?\d\.\d\d", text)  # variants: trained here, or the twin's
    assert re.search(r"twin version +none", text) and "CMMP small.h5" in text


def test_every_later_chapter_runs_on_a_real_file(sound, tmp_path):
    """What the contents list beside those above: settings are missing or constant, and each goes through."""
    assert set(BY_NAME) <= set(CHAPTERS)
    for chapter in (name for name in CHAPTERS if name not in (*BY_NAME, *COMPARE)):
        declared = papermill.inspect_notebook(str(NOTEBOOKS / f"{chapter}.ipynb"))
        short = {"samples": 256} if "samples" in declared else {}
        assert run(chapter, tmp_path, data=str(sound), profile="smoke", **short).strip(), chapter


def test_style_transfer_on_a_real_file(sound, tmp_path):
    """Images are rendered, embedded and read back; nothing stands for the truth that is not there."""
    text = run("05_style_transfer", tmp_path, data=str(sound), profile="smoke")
    assert text.count("no truth in this data set") == 1 and "recording: left out" in text
    assert re.search(r"test +2\d images, 3 sessions", text)  # of 24, those whose current is known
    assert "analytic: left out, detector_offset not known" in text
    assert re.search(r"generator +-?\d\.\d+ \[.*\] +-?\d\.\d+ \[", text)  # the gap, by two encoders
    assert re.search(r"dwell_time +\d\.\d\d +\d\.\d\d +\d\.\d\d\n", text) and re.search(r"detector_offset +NaN", text)
    assert re.search(r"held-out sessions +6, 3", text) and not re.search(r"recording +-?\d", text)


def test_denoising_on_a_real_file(sound, tmp_path):
    """Its images are restored and what was taken away is checked; no gain, score or coverage is shown."""
    text = run("06_denoising", tmp_path, data=str(sound), profile="smoke")
    assert text.count("no truth in this data set") == 1 and "24 images held out, of 3 sessions" in text
    assert re.search(r"offset +missing", text)
    assert re.search(r"direct +\d\.\d\d +-?\d\.\d\d +\d\.\d\d +\d+\.\d\d +\d+\.\d\d\n", text)  # with a claimed gain
    assert re.search(r"noise taken away by direct +\d\.\d\d *\n", text)
    assert not re.search(r"psnr|gain of|cover68|committed results", text)


def test_retrieval_on_a_real_file(sound, tmp_path):
    text = run("03_retrieval", tmp_path, data=str(sound), profile="full", samples=256)
    assert "test: 8 images, 1 sessions, 8 distinct settings" in text and "256 crops, trained here" in text
    assert "the test part holds 8 distinct settings: the pool is all of them" in text
    assert "a pool of the second table holds 1 only" in text
    assert re.search(r"matched minus mismatched: -?\d\.\d+ \[nan, nan\]", text)  # one session has no interval
    assert re.search(r"wrong, differs in offset +(NaN|None)", text)  # missing in all images
    assert re.search(r"[1-9]\d* images read", text) and "0 points" in text


def test_missing_columns_are_all_named_in_one_error(tmp_path):
    without = ("stats_mean", "stats_std", "log_indices")
    file = write_real(tmp_path / "a.h5", raw=settings(4), without=without)
    error = stop("01_data_and_twin", tmp_path, data=str(file), profile="smoke")
    assert error.startswith("SchemaError") and "3 fault(s)" in error
    assert all(name in error for name in without)


def test_a_truncated_download_is_one_clear_error(sound, tmp_path):
    file = tmp_path / "CMMP cut.h5"
    file.write_bytes(sound.read_bytes()[:-100_000])
    error = stop("00_quickstart", tmp_path, data=str(file), profile="smoke")
    assert error.startswith("UnreadableFileError") and "CMMP cut.h5" in error and "truncated" in error


def test_one_session_cannot_be_split(tmp_path):
    names = [f"D:\\Titan\\one day\\{i}.emd" for i in range(2 * IMAGES)]
    file = write_real(tmp_path / "a.h5", raw=settings(2), names=names)
    error = stop("02_pretraining", tmp_path, data=str(file), profile="smoke")
    assert error.startswith("OutOfRangeError") and "split by session into 3 parts" in error


def test_images_smaller_than_a_crop_are_left_out_and_counted(tmp_path):
    names = [f"D:\\Titan\\{'a' if i < 20 else 'bc'[i % 2]}\\{i}.emd" for i in range(3 * IMAGES)]
    file = write_real(tmp_path / "a.h5", raw=settings(3), names=names, edges=(64, 64, 64, 32))
    error = stop("02_pretraining", tmp_path, data=str(file), profile="smoke")
    assert "6 of 24 images left out: smaller than a crop, 64 pixels" in run.text
    assert error.startswith("OutOfRangeError") and "images tell nothing; take more sessions" in error

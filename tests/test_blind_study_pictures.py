"""Pictures of a study: every format alike, and every file that cannot be shown named."""

import numpy as np
import pytest
from study_files import SIDE, picture, refuses, save, write_config, write_pictures

from cimp_core.blind_study.make import make_study
from cimp_core.blind_study.pictures import load_picture, spoil
from cimp_core.errors import OutOfRangeError, SchemaError, UnreadableFileError


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


def test_every_format_type_and_scale_gives_the_same_bytes(tmp_path):
    """What the file is can then not be told from the page, whatever else it could be told from."""
    counts = np.random.default_rng(0).poisson(40, (48, 40)).astype(np.uint8)
    files = [
        save(tmp_path / "a.tif", counts),
        save(tmp_path / "b.png", counts),
        save(tmp_path / "c.png", np.stack([counts] * 3, axis=-1)),
        save(tmp_path / "d.npy", counts.astype(float) * 1e-9 - 3e-8),
        save(tmp_path / "e.hspy", (counts.astype(np.int32) - 500) * 7),
        save(tmp_path / "f.tif", counts.astype(">u2") * 256),
        save(tmp_path / "g.npy", (counts.astype(float) - 40) * 6e306),
    ]
    first, *others = [load_picture(path, 0.1, 99.9)[0] for path in files]
    assert first.dtype == np.uint8 and (first.min(), first.max()) == (0, 255)
    assert all(np.array_equal(first, other) for other in others)


def test_percentiles_become_black_and_white(tmp_path):
    path = save(tmp_path / "a.npy", np.arange(1001.0 * 16).reshape(1001, 16) // 16)
    grey, _ = load_picture(path, 10, 90)
    assert [int(np.sum(grey == end)) // 16 for end in (0, 255)] == [pytest.approx(102, abs=2)] * 2
    assert grey[500, 0] in (127, 128)


def test_a_crop_keeps_the_middle(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 80))
    path, inner = save(tmp_path / "a.npy", values), save(tmp_path / "b.npy", values[9:41, 24:56])
    assert np.array_equal(load_picture(path, 0, 100, 32)[0], load_picture(inner, 0, 100)[0])
    assert load_picture(path, 0, 100, 60)[0].shape == (50, 60)


def test_a_spoilt_picture_keeps_nothing_fine():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    lattice = np.tile(np.kron(np.eye(2), np.full((4, 4), 255)), (16, 16)).astype(np.uint8)
    grey = np.clip(lattice * 0.6 + rng.normal(60, 40, lattice.shape), 0, 255).astype(np.uint8)
    worse = spoil(grey, "key")

    def alike(one):
        return np.corrcoef(gaussian_filter(one.astype(float), 1).ravel(), lattice.ravel())[0, 1]

    assert alike(grey) > 0.7 and abs(alike(worse)) < 0.05
    assert np.array_equal(worse, spoil(grey, "key")) and not np.array_equal(worse, spoil(grey, "other"))


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        (np.full((SIDE, SIDE), 7.0), OutOfRangeError, "nothing to see"),
        (np.where(np.eye(SIDE), np.nan, 1.0), OutOfRangeError, f"{SIDE} values are not finite"),
        (np.ones((2, SIDE, SIDE)), UnreadableFileError, f"2 x {SIDE} x {SIDE} is not one grey picture"),
        (np.ones((SIDE, SIDE), complex), UnreadableFileError, "complex128, not real numbers"),
        (np.array([{}]), UnreadableFileError, "cannot be read .*allow_pickle"),
        (np.arange(64.0).reshape(8, 8), OutOfRangeError, "8 x 8 pixels are too few"),
        (np.random.default_rng(0).normal(size=(SIDE, 32)), OutOfRangeError, f"{SIDE} x 32 .* one image must show"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_named(folder, values, error, says):
    (folder / "smooth" / "im03.tif").unlink()
    np.save(folder / "smooth" / "im03.npy", values, allow_pickle=True)
    refuses(error, rf"smooth.im03\.npy.*{says}", write_config(folder))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy", ".hspy"])
@pytest.mark.parametrize("text", [b"", b"no picture" * 50])
def test_a_damaged_file_is_named(folder, suffix, text):
    (folder / "raw" / "im00.tif").unlink()
    (folder / "raw" / f"im00{suffix}").write_bytes(text)
    refuses(UnreadableFileError, rf"raw.im00\{suffix}: cannot be read", write_config(folder))


def test_methods_that_lack_images_are_named_with_them(folder):
    for name in ("raw/im01.tif", "raw/im04.tif", "sharp/im00.tif"):
        (folder / name).unlink()
    refuses(SchemaError, "raw lacks im01, im04; sharp lacks im00: add or rename", write_config(folder))


def test_what_else_can_be_wrong_with_folders_is_told(folder):
    refuses(
        UnreadableFileError,
        "smooth: no pictures at .*nowhere",
        write_config(folder, methods={"raw": "raw", "smooth": "nowhere"}),
    )
    refuses(
        SchemaError, "belongs to both raw and again", write_config(folder, methods={"raw": "raw", "again": "raw/*.tif"})
    )
    refuses(
        OutOfRangeError,
        "fewer than the 40 of a rater: add images, or lower trials to 18",
        write_config(folder, trials=40),
    )
    refuses(SchemaError, "reference lacks im00", write_config(folder, reference="raw/im0[1-5].tif"))
    save(folder / "raw" / "im00.npy", picture(0, 0))
    refuses(SchemaError, r"raw: .*im00\.npy and .*im00\.tif are two pictures of one name", write_config(folder))


def test_the_uncertainty_beside_a_denoised_picture_is_no_image(folder):
    save(folder / "raw" / "im00_uncertainty.tif", picture(9, 0))
    (folder / "raw" / "im00.denoised.json").write_text("{}", encoding="utf-8")
    assert make_study(write_config(folder)).key["images"] == [f"im{k:02d}" for k in range(6)]

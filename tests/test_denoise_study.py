"""The study of denoisers: cases are what they claim to be, tables go on after a stop, rows say what was measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cimp_core as cimp
from cimp_core.denoising.classical import Gaussian
from cimp_core.denoising.oracle import OracleGaussian
from cimp_core.denoising.pairs import bright_electrons
from cimp_core.errors import OutOfRangeError, SchemaError
from cimp_core.metrics import bootstrap_interval
from cimp_core.results import read_results, row_faults
from cimp_core.simulate.detector import record
from cimp_core.study import denoising_cases, denoising_scores
from cimp_core.study.denoising import SHIFT, Checked, Raw, evaluate, methods, read_tables
from cimp_core.study.denoising_cases import LADDER, Cases, chosen_images, make_cases
from cimp_core.study.denoising_rows import (
    ENDPOINTS,
    across,
    curve,
    denoising_rows,
    dose_name,
    endpoint_lines,
    endpoint_table,
    median_interval,
    paired,
)


@pytest.fixture(scope="module")
def data():
    return cimp.twin(images=240, size=96, seed=0)


@pytest.fixture(scope="module", autouse=True)
def scanned_once():
    """Several tests choose among the same areas: none is scanned twice with the image's own settings."""
    seen, scan = {}, denoising_cases.scan_of

    def scan_of(data, index, acquisition=None):
        if acquisition is not None:
            return scan(data, index, acquisition)
        key = (data.path, int(data.indices[index]))
        if key not in seen:
            seen[key] = scan(data, index)
        return seen[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denoising_cases, "scan_of", scan_of)
        yield


@pytest.fixture(scope="module")
def cases(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return make_cases(data, folder, images=4, short=2, flat=2, doses=(1.0, 16.0, 500.0), seed=0)


class Known:
    """Returns a mixture of the recording and the truth, with a deviation that is right for it."""

    name = "known"

    def __init__(self, cases, share=0.25):
        self.truths = {c.frame.tobytes(): c.truth(16) for c in cases}
        self.share, self.told = share, []

    def __call__(self, frame, acquisition, factor):
        self.told.append((acquisition, factor))
        truth = self.truths.get(frame.tobytes(), frame)
        image = truth + self.share * (frame - truth)
        return image, np.full(frame.shape, max(float(np.std(image - truth)), 1e-3))


def test_a_case_is_a_recording_with_its_truth(cases):
    for case in cases:
        assert case.raw_errors.keys() == {4.0, 16.0, 64.0} and len(case.raw_errors[16.0]) == len(LADDER)
        if case.kind in ("dose", "short"):
            found = bright_electrons(case.fraction, case.acquisition)
            assert found == pytest.approx(case.electrons, rel=1e-4)
            assert case.raw_errors[16.0][0] > case.raw_errors[16.0][-1] >= 0
        again = [
            record(case.fraction, case.acquisition, case.shot.detector, np.random.default_rng(s)) for s in range(8)
        ]
        truth = case.truth(16)
        # Of many recordings the mean is the expectation, but for clipping of black at zero and after-glow.
        apart = np.mean(again) - truth.mean()
        assert abs(apart) < 6 * np.std(again) / np.sqrt(8 * truth.size) + 0.05 * np.std(again)
    dwell = {case.kind: case.acquisition.dwell_time for case in cases}
    assert dwell["dose"] >= 0.999e-6 and 1e-7 <= dwell["short"] <= 1e-6
    flat = [case for case in cases if case.kind in ("vacuum", "even")]
    assert len(flat) == 2 * 2 * 4 and all(np.ptp(case.fraction) == 0 for case in flat)


def test_cases_are_of_many_sessions_and_go_on(data, cases, monkeypatch):
    chosen = chosen_images(data, 8)
    assert len({data.sessions[i] for i in chosen}) == min(8, len(np.unique(data.sessions)))
    with pytest.raises(OutOfRangeError, match="something to see"):
        chosen_images(data.view(range(3)), 4)
    monkeypatch.setattr("cimp_core.study.denoising_cases.scan_of", None)  # nothing is made again
    again = make_cases(data, cases.folder, images=4, short=2, flat=2, doses=(1.0, 16.0, 500.0))
    assert again.keys == cases.keys
    with pytest.raises(SchemaError, match="another choice"):
        make_cases(data, cases.folder, images=5, short=2, flat=2, doses=(1.0, 16.0, 500.0))
    with pytest.raises(SchemaError, match="make_cases"):
        Cases(cases.folder / "nothing")
    few = cases.of(kinds=["dose"], doses=[16.0], images=2)
    assert len(few) == 2 and {few.about(key)["electrons"] for key in few.keys} == {16.0}


@pytest.fixture(scope="module")
def tables(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for method in (Raw(), Gaussian(), OracleGaussian(), Known(cases)):
        evaluate(method, cases, folder)
    return folder


def test_scores_of_the_raw_image_and_of_a_known_mixture(cases, tables):
    table = read_tables(tables).set_index(["method", "key"])
    for key in cases.of(kinds=["dose", "short"]).keys:
        raw, known, oracle = (table.loc[name, key] for name in ("raw", "known", "oracle_gaussian"))
        assert raw["gain"] == 1 and known["gain"] > 4 and oracle["gain"] >= 1
        assert oracle["error"] <= 1.001 * table.loc["gaussian", key]["error"]
        # Noise of a quarter, a sixteenth in power, 12 dB.
        assert known["psnr"] - raw["psnr"] == pytest.approx(20 * np.log10(4), abs=0.01)
        assert raw["psnr"] < known["psnr"] and raw["ssim"] < known["ssim"] and raw["resolution"] <= known["resolution"]
        assert known["cover68"] > 0.6 and np.isnan(raw["cover68"])
        assert np.isnan(raw["spot"]) and np.isnan(raw["left"])
        if raw["electrons"] == 500:  # enough for the whole image at least
            assert raw["regions"] >= 1 and raw["bias"] < 0.01 and known["bias_within"] == 1
    for key in cases.of(kinds=["vacuum", "even"]).keys:
        raw, known = table.loc["raw", key], table.loc["known", key]
        assert known["left"] == pytest.approx(1 / 16, rel=1e-3) and raw["left"] == pytest.approx(1, rel=1e-3)
        assert raw["spot"] < 10 and np.isnan(raw["gain"])


def test_a_table_goes_on_after_a_line_that_was_cut_off(cases, tables, tmp_path):
    whole = (tables / "raw.csv").read_text().splitlines(keepends=True)
    (tmp_path / "raw.csv").write_text("".join(whole[:5]) + whole[5][:20])

    class Watched(Raw):
        calls = 0

        def __call__(self, *arguments):
            Watched.calls += 1
            return super().__call__(*arguments)

    evaluate(Watched(), cases, tmp_path)
    assert Watched.calls == len(cases) - 4
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "raw.csv").drop(columns=drop), pd.read_csv(tables / "raw.csv").drop(columns=drop)
    )
    (tmp_path / "raw.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SchemaError, match="another version"):
        evaluate(Raw(), cases, tmp_path)
    with pytest.raises(SchemaError, match="not a table"):
        read_tables(tmp_path)


def test_what_a_method_is_told(cases, tmp_path):
    some = cases.of(kinds=["dose"], doses=[16.0])
    told = {}
    for variant in ("", "wrong", "missing", "shifted"):
        method = Known(some)
        path = evaluate(method, some, tmp_path, variant=variant)
        assert path.stem == "known" + (f"_{variant}" if variant else "")
        told[variant] = [acquisition for acquisition, _ in method.told]
    own = [case.acquisition for case in some]
    assert told[""] == own and all(len(a.missing) == 7 for a in told["missing"])
    assert all(a != b and a in own for a, b in zip(told["wrong"], own, strict=True))
    for case, shifted in zip(some, told["shifted"], strict=True):
        detector = case.shot.detector
        black = detector.black_at(case.acquisition.detector_offset)
        factor = detector.slope_at(shifted.detector_gain) / detector.slope_at(case.acquisition.detector_gain)
        assert min(abs(factor - 3), abs(factor - 1 / 3)) < 1e-9 and shifted.detector_gain <= 50
        assert detector.black_at(shifted.detector_offset) == pytest.approx(factor * black + SHIFT[1])
    evaluate(Gaussian(2.0), some, tmp_path)
    evaluate(Gaussian(2.0), some, tmp_path, variant="shifted")
    plain, shifted = (pd.read_csv(tmp_path / f"gaussian{end}.csv") for end in ("", "_shifted"))
    np.testing.assert_allclose(plain["psnr"], shifted["psnr"], atol=1e-3)
    evaluate(Gaussian(2.0), some, tmp_path, factor=64.0)
    assert (pd.read_csv(tmp_path / "gaussian_f64.csv")["factor"] == 64).all()
    with pytest.raises(OutOfRangeError, match="factor 5"):
        evaluate(Gaussian(2.0), some, tmp_path, factor=5.0)
    flat = cases.of(kinds=["even"])
    assert len(pd.read_csv(evaluate(OracleGaussian(), flat, tmp_path))) == 0  # nothing to tune by


def test_a_checked_method_is_told_what_agrees_with_the_picture(cases, monkeypatch):
    from cimp_core.denoising import trust

    case, asked = cases.load(cases.keys[0]), []

    def check(frame, acquisition, *, absolute, model):
        asked.append((acquisition, absolute, model))
        return trust.Trust(cimp.Acquisition(), "disagree", 0.1)

    monkeypatch.setattr(trust, "check", check)
    method = Known(cases)
    method.margin, method.encoder = 3, "its own"
    checked = Checked(method)
    checked(case.frame, case.acquisition, 16.0)
    assert asked == [(case.acquisition, True, "its own")] and method.told == [(cimp.Acquisition(), 16.0)]
    assert checked.name == "known_checked" and checked.margin == 3


def made_up(rng, ours, theirs, doses=(4.0, 64.0), images=40):
    """A table in which `direct` has the gains `ours`, `noise2void` the gains `theirs`, with scatter."""
    lines = []
    for dose in doses:
        for i in range(images):
            image = np.exp(rng.normal())
            for name, gain in (("direct", ours), ("noise2void", theirs)):
                shared = {"key": f"dose_{i}_{dose:g}", "kind": "dose", "session": i, "electrons": dose}
                lines.append({"method": name, **shared, "gain": gain * image * np.exp(0.05 * rng.normal())})
    return pd.DataFrame(lines, columns=list(denoising_scores.COLUMNS))


def test_ratios_are_paired_and_endpoints_are_met_by_the_lower_end():
    table = made_up(np.random.default_rng(0), 5.0, 2.0)
    both = paired(table, "direct", "noise2void")
    assert len(both) == 80 and both["ratio"].median() == pytest.approx(2.5, rel=0.03)
    rows = denoising_rows(table, "v")
    assert [fault for made in rows for fault in row_faults(made)] == []
    found = endpoint_table(rows)
    assert list(found.index) == [name.removeprefix("denoise.") for name in ENDPOINTS]
    line = found.loc["dose_gain_over.noise2void.4e"]
    # The images scatter by e, but what is compared is the same image: a narrow interval.
    assert line.met == "yes" and line.high - line.low < 0.2 and line.low < 2.5 < line.high
    assert found.loc["dose_gain_over.noise2void.8e"].met == "not measured"
    weak = endpoint_table(denoising_rows(made_up(np.random.default_rng(1), 2.02, 1.0), "v"))
    line = weak.loc["dose_gain_over.noise2void.4e"]
    assert line.value > 1.97 and line.low < 2 and line.met == "no"
    assert weak.loc["dose_gain_over.noise2void.64e"].met == "yes"  # there the target is 1.6
    told = table.replace({"direct": "direct_checked_wrong", "noise2void": "direct_without_metadata"})
    line = endpoint_table(denoising_rows(told, "v")).loc["wrong_checked_over.direct_without_metadata.4e"]
    assert line.met == "yes" and line.value == pytest.approx(2.5, rel=0.03)
    assert len(endpoint_lines(rows)) == 2 and endpoint_lines(rows)[0].endswith(": met")


def test_no_row_that_nothing_shows_is_written_or_committed():
    table = made_up(np.random.default_rng(0), 5.0, 2.0, doses=(4.0, 16.0, 250.0))
    others = [
        table.replace({"noise2void": name}) for name in ("gaussian", "direct_wrong", "direct_shifted", "direct_f64")
    ]
    table = pd.concat([table, *others], ignore_index=True).assign(f1=0.5, bias=0.1, psnr=20.0, ssim=0.5)
    made = {row["name"] for row in denoising_rows(table, "v")}
    book = Path(__file__).resolve().parents[1] / "book" / "results.json"
    committed = {row["name"] for row in read_results(book) if row["name"].startswith("denoise.")}
    for names in (made, committed):
        assert {name for name in names if "_over." in name} <= set(ENDPOINTS)
        assert {name.split(".")[-1] for name in names if name.startswith(("denoise.f1.", "denoise.bias."))} == {"16e"}
        assert not [name for name in names if name.split(".")[-2].endswith(("_wrong", "_shifted", "_f64"))]
    assert {"denoise.psnr.gaussian.250e", "denoise.dose_gain.gaussian.250e", "denoise.ssim.gaussian.4e"} <= made
    assert "denoise.ssim.gaussian.250e" not in made and "denoise.dose_gain_over.gaussian.4e" not in made


def test_rows_as_curves_and_as_tables():
    table = made_up(np.random.default_rng(0), 5.0, 2.0, doses=(4.0, 16.0)).assign(f1=0.5, fringe=np.nan)
    rows = {row["name"]: row for row in denoising_rows(table, "v")}
    found = curve(rows, ["noise2void", "direct", "magic"], (4.0, 8.0, 16.0))
    assert list(zip(found["method"], found["electrons"], strict=True)) == [
        ("noise2void", 4.0), ("noise2void", 16.0), ("direct", 4.0), ("direct", 16.0)
    ]  # fmt: skip
    assert (found["low"] < found["value"]).all() and (found["value"] < found["high"]).all()
    assert found["value"].iloc[2] == rows["denoise.dose_gain.direct.4e"]["value"]
    assert curve({}, ["direct"], (4.0,)).empty
    side = across(rows, ["direct", "magic"], ["f1", "fringe"])
    assert side.loc["direct", "f1"] == 0.5 and side.drop(columns="f1").isna().all(axis=None)
    assert np.isnan(side.loc["magic", "f1"])


@pytest.mark.parametrize("count", [41, 300])
def test_fast_interval_of_a_median_is_the_general_one(count):
    rng = np.random.default_rng(count)
    clusters, values = rng.integers(0, 30, count), rng.normal(size=count).round(1)  # some of them equal
    for seed in (0, 4):
        fast, general = (
            median_interval(clusters, values, seed=seed),
            bootstrap_interval(np.median, clusters, values, seed=seed),
        )
        np.testing.assert_allclose(fast, general, rtol=1e-12)
    alone = median_interval(np.arange(count), values), bootstrap_interval(np.median, np.arange(count), values)
    np.testing.assert_allclose(*alone, rtol=1e-12)
    assert np.isnan(median_interval(np.zeros(5), np.ones(5))).all() and np.isnan(median_interval([], [])).all()


def test_rows_of_measured_tables(cases, tables):
    rows = denoising_rows(read_tables(tables), cases.twin_version, profile="smoke")
    assert [fault for made in rows for fault in row_faults(made)] == []
    names = [made["name"] for made in rows]
    assert len(set(names)) == len(names)
    values = {made["name"]: made["value"] for made in rows}
    assert values["denoise.dose_gain.raw.1e"] == 1 and values["denoise.noise_left.known.even"] == pytest.approx(1 / 16)
    table = read_tables(tables)
    part = table[(table.method == "gaussian") & (table.kind == "dose") & (table.electrons == 16)]
    assert values["denoise.psnr.gaussian.16e"] == pytest.approx(part.psnr.mean(), abs=1e-5)
    assert "denoise.glow.dose_gain.raw" in values or table[table.kind == "short"].decay_time.max() < 1e-7


def test_names_of_doses_and_methods():
    assert [dose_name(d) for d in (0.5, 1.0, 250.0)] == ["0_5e", "1e", "250e"]
    assert list(methods(["raw", "wiener"])) == ["raw", "wiener"]
    with pytest.raises(OutOfRangeError, match="unknown method"):
        methods(["magic"])
    with pytest.raises(OutOfRangeError, match="without settings"):
        methods(["direct_without_metadata"])

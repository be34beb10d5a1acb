"""The study of re-rendering: what is asked for, the truth of it, scores that see what they are for, and sweeps."""

import h5py
import numpy as np
import pytest

import cimp_core as cimp
from cimp_core.digital_twin import scan_of
from cimp_core.errors import OutOfRangeError
from cimp_core.metadata import PARAMETERS, Acquisition, Normalizer
from cimp_core.models import Translator, TranslatorConfig
from cimp_core.results import row_faults
from cimp_core.study import restyling, restyling_ablation, restyling_cases
from cimp_core.study.restyling import (
    chosen_images,
    evaluate,
    restyling_rows,
    routes,
    sweep_cases,
    sweep_rows,
)
from cimp_core.study.restyling_cases import CHANGED, SIGMAS, cases_of, joint, single, truth_of
from cimp_core.study.restyling_scores import SCORES, Reader, scores

COMMON = {"split": "material", "profile": "smoke", "seeds": [0], "twin_version": None, "command": "test"}


@pytest.fixture(scope="module")
def parts():
    return cimp.twin(60, 96).split("material", val=0.2, test=0.2, seed=0)


@pytest.fixture(scope="module")
def cases(parts):
    return list(cases_of(parts[2], [0, 3, 5], parts[0], joints=1, draws=1))


def test_each_parameter_moves_alone_to_steps_of_its_own_distribution(parts):
    raw = parts[0].metadata_raw
    normalizer, least = Normalizer.fit(raw), float(raw[:, 2].min())
    for vector in parts[2].metadata_raw[:6].astype(float):
        found, own = single(vector, normalizer, least), normalizer.normalize(vector[None])[0]
        assert len(found) == len(CHANGED) * (len(SIGMAS) - 1)
        for change, wanted in found.items():
            name, sigma = change[:-2], int(change[-2:])
            j = PARAMETERS.index(name)
            np.testing.assert_array_equal(np.delete(wanted, j), np.delete(vector, j))
            assert wanted[6] > wanted[2] >= min(least, vector[2])
            if name not in ("convergence_angle", "inner_collection_angle"):
                assert normalizer.normalize(wanted[None])[0, j] == pytest.approx(sigma, abs=1e-6)
        left = {name: set(SIGMAS) - {int(c[-2:]) for c in found if c[:-2] == name} for name in CHANGED}
        for name, (step,) in left.items():
            away = np.abs(np.array(SIGMAS) - own[PARAMETERS.index(name)])
            assert step == SIGMAS[int(away.argmin())]


def test_joint_changes_keep_the_pixel_size_and_are_settings_that_were_used(parts):
    raw = parts[0].metadata_raw.astype(float)
    wanted = joint(raw[0], raw[1:], np.random.default_rng(0))
    assert wanted[0] == raw[0, 0] and any(np.array_equal(wanted[1:], r[1:]) for r in raw[1:])


def test_truth_keeps_the_beam_where_it_was_and_has_the_recording_for_a_draw(parts):
    data = parts[2]
    own = data.acquisition(0)
    expected, recording = truth_of(data, 0, own)
    stored = data.image(0).astype(float)
    noise = (stored - expected).std()
    assert abs((recording - expected).std() / noise - 1) < 0.1 and abs((recording - expected).mean()) < 0.1 * noise
    # At another dwell time the rows stay where they were, which a new scan would not do where pixels are fine.
    whole = cimp.twin(60, 96)
    i = int(np.argmin(whole.metadata_raw[:, 0]))
    own = whole.acquisition(i)
    longer = own.replace(dwell_time=3 * own.dwell_time)
    before, after, again = (
        truth_of(whole, i, own)[0], truth_of(whole, i, longer)[0], cimp.reacquire(whole, i, longer, noise=False)
    )  # fmt: skip
    assert np.std(after - before) < 0.5 * np.std(again - before)


def test_a_scan_is_shared_by_cases_of_the_same_optics_and_by_no_others(parts, monkeypatch):
    data, asked = parts[2], []

    def watched(data, index, acquisition):
        asked.append((index, acquisition))
        return scan_of(data, index, acquisition)

    monkeypatch.setattr(restyling_cases, "scan_of", watched)
    monkeypatch.setattr(restyling_cases, "_scans", {})
    own = data.acquisition(2)
    targets = [own, own.replace(detector_gain=own.detector_gain + 1), own.replace(dwell_time=2 * own.dwell_time)]
    targets += [
        own.replace(beam_current=2 * own.beam_current),
        own.replace(convergence_angle=0.9 * own.convergence_angle),
    ]
    targets.append(own.replace(inner_collection_angle=1.1 * own.inner_collection_angle))
    found = [truth_of(data, 2, target) for target in targets]
    assert len(asked) == 4
    truth_of(data, 3, data.acquisition(3))
    assert len(asked) == 5
    for target, (expected, recording) in zip(targets, found, strict=True):
        restyling_cases._scans.clear()
        alone = truth_of(data, 2, target)
        np.testing.assert_array_equal(alone[0], expected)
        np.testing.assert_array_equal(alone[1], recording)
    monkeypatch.setattr(restyling_cases, "KEPT", 1)
    truth_of(data, 2, targets[3])
    assert len(restyling_cases._scans) == 1


def test_scores_are_best_for_the_truth_and_see_what_they_are_for(cases):
    case = next(c for c in cases if c.change == "joint" and c.expected.std() > 500)
    best = dict(zip(SCORES, scores(case.recording, case), strict=True))
    assert best["noise"] == best["spectrum"] == best["histogram"] == 0
    perfect = dict(zip(SCORES, scores(case.expected, case), strict=True))
    assert perfect["psnr"] == 99 and perfect["ssim"] == pytest.approx(1) and not perfect["lattice"] > 0
    rng = np.random.default_rng(0)
    deviation = np.sqrt(np.mean((case.recording - case.expected) ** 2)) + 100
    noisy = dict(zip(SCORES, scores(case.recording + deviation * rng.standard_normal((96, 96)), case), strict=True))
    assert noisy["noise"] > 0.1 and noisy["psnr"] < best["psnr"] - 1 and noisy["spectrum"] > 0
    lifted = dict(zip(SCORES, scores(case.recording + 3000.0, case), strict=True))
    assert lifted["histogram"] == pytest.approx(3000 / 655.35, rel=0.01) and lifted["noise"] == pytest.approx(0)


def test_lattice_shift_is_in_periods_a_field(cases):
    x = np.arange(96)
    columns = {k: np.cos(2 * np.pi * k * x / 96) for k in (16, 18)}
    waves = {k: 8000 + 2000 * np.add.outer(wave, wave) for k, wave in columns.items()}
    case = cases[0]._replace(expected=waves[16], recording=waves[16].astype(np.uint16))
    found = [dict(zip(SCORES, scores(waves[k], case), strict=True))["lattice"] for k in (16, 18)]
    assert found[0] == 0 and found[1] == pytest.approx(2, abs=0.2)
    assert np.isnan(scores(np.full((96, 96), 65535.0), case)[SCORES.index("lattice")])
    flat = case._replace(expected=np.full((96, 96), 5000.0))
    assert np.isnan(scores(waves[16], flat)[SCORES.index("lattice")])


def test_rows_of_all_routes(parts, renderer, cases):
    class Told(Reader):
        """Learns nothing, so that the test is quick: reads the mean everywhere."""

        def __init__(self, train):
            self.normalizer = train.normalizer

        def __call__(self, rows):
            return np.zeros((len(rows), 7))

    encoders = {"own": renderer.conditioner.encoder}
    table = evaluate(cases, routes(renderer), reader=Told(parts[0]), encoders=encoders)
    assert list(dict.fromkeys(table["route"])) == ["unchanged", "analytic", "generator", "rerender", "recording"]
    assert len(table) == 5 * len(cases)
    left, untrained = (table[table["route"] == r]["psnr"].to_numpy() for r in ("unchanged", "generator"))
    np.testing.assert_allclose(left, untrained, atol=0.01)
    rows = restyling_rows(table, np.asarray(parts[2].sessions), COMMON)
    by_name = {r["name"]: r for r in rows}
    assert len(by_name) == len(rows) and not any(row_faults(r) for r in rows)
    for change in [*CHANGED, "joint"]:
        assert by_name[f"style.histogram.{change}.recording"]["value"] == 0
    picked = table[(table["route"] == "analytic") & (table["change"] == "joint")]
    assert by_name["style.psnr.joint.analytic"]["value"] == pytest.approx(picked["psnr"].mean(), abs=1e-5)
    assert by_name["style.psnr.joint.analytic"]["pool"] == 3 and by_name["style.psnr.joint.analytic"]["unit"] == "dB"
    wanted = parts[0].normalizer.normalize(np.array([c.target.vector() for c in cases if c.change == "joint"]))
    expected = np.abs(wanted[:, 4]).mean()
    assert by_name["style.read.detector_gain.joint.unchanged"]["value"] == pytest.approx(expected, abs=1e-5)
    assert "style.gap.own.generator" in by_name and "style.ssim.joint.analytic" in by_name
    # Of a parameter alone the book shows these two, and nothing of single steps or of what was not changed with it.
    alone = {name.split(".")[1] for name in by_name if set(name.split(".")) & set(CHANGED) and ".joint." not in name}
    assert alone == {"psnr", "histogram"} and all(name.count(".") == 3 for name in by_name if ".read." not in name)


def test_arithmetic_beats_leaving_the_image_as_it_is_for_gain_and_offset(parts, renderer):
    cases = [c for n in ("detector_gain", "detector_offset") for c in cases_of(parts[2], range(6), parts[0], only=n)]
    table = evaluate(cases, {n: routes(renderer)[n] for n in ("unchanged", "analytic")})
    medians = table.groupby("route")["psnr"].median()
    assert medians["analytic"] > medians["unchanged"] + 6


def test_preferred_routes_are_told_by_parameter_and_direction(cases, renderer):
    ways = {n: routes(renderer)[n] for n in ("unchanged", "recording")}
    table = evaluate(cases, ways)
    found = restyling.preferred_routes(table, cases)
    assert set(found.index.get_level_values("parameter")) == set(CHANGED)
    assert (found["histogram", "recording"] == 0).all()
    some = [k for k, c in enumerate(cases) if c.change[:-2] == "detector_gain"]
    lower = [k for k in some if cases[k].target.detector_gain < cases[k].source.detector_gain]
    own = table[(table["route"] == "unchanged") & table["case"].isin(lower)]
    assert found.loc[("detector_gain", "lowered"), ("psnr", "unchanged")] == pytest.approx(own["psnr"].mean())


def test_reader_reads_what_it_learnt_to_read():
    """An area at many offsets, which no statistic could mistake; boosting needs more images than the others here."""

    class Shown:
        normalizer = Normalizer((), np.zeros(7), np.ones(7))

        def __init__(self, levels):
            self.metadata = np.zeros((len(levels), 7))
            self.metadata[:, 5] = levels

        def __len__(self):
            return len(self.metadata)

        def view(self, which):
            return Shown(self.metadata[which, 5])

        def image(self, i):
            rng = np.random.default_rng(i)
            return (9000 + 3000 * self.metadata[i, 5] + 300 * rng.standard_normal((32, 32))).astype(np.uint16)

    rng = np.random.default_rng(0)
    train, val, test = (Shown(rng.uniform(-2, 2, n)) for n in (150, 40, 20))
    reader = Reader(train, val, most=140)
    assert len(reader.features[0]) == 140 and len(reader.features[1]) == 28
    reader.targets[0][:, :5] = np.nan  # of which nothing was known to learn
    read = reader([reader.look(test.image(i)) for i in range(len(test))])
    assert read.shape == (20, 7) and np.abs(read[:, 5] - test.metadata[:, 5]).max() < 0.4
    assert np.isnan(read[:, :5]).all() and np.isfinite(read[:, 5:]).all()


def write_sweep(path, data, name, values, dtype=np.uint16):
    """A sweep as a microscope would record it: one area of the twin at several values of one setting."""
    own = data.acquisition(1)
    settings = [own.replace(**{name: v}) for v in values]
    frames = [cimp.reacquire(data, 1, a, seed=k) for k, a in enumerate(settings)]
    with h5py.File(path, "w") as file:
        file["images"] = np.stack(frames).astype(dtype)
        file["metadata_raw"] = np.array([a.vector() for a in settings], np.float32)
    return settings


def test_a_sweep_goes_through_the_same_evaluation_by_path(parts, renderer, tmp_path):
    path = tmp_path / "gain_sweep.h5"
    own = parts[2].acquisition(1).detector_gain
    settings = write_sweep(path, parts[2], "detector_gain", [own - 1.5, own, own + 1.5])
    cases = sweep_cases(path, most=4, size=64)
    assert len(cases) == 4 and all(c.frame.shape == (64, 64) and c.change == "detector_gain" for c in cases)
    for case in cases:
        assert case.source.detector_gain == pytest.approx(settings[case.index].detector_gain, rel=1e-6)
        assert case.target.detector_gain != case.source.detector_gain
    rows = {r["name"]: r for r in sweep_rows(cases, renderer, {**COMMON, "split": None})}
    assert not any(row_faults(r) for r in rows.values())
    distance = {r: rows[f"style.sweep.histogram.detector_gain.{r}"]["value"] for r in ("unchanged", "analytic")}
    assert distance["analytic"] < 0.6 * distance["unchanged"]
    assert "style.sweep.psnr.detector_gain.rerender" in rows


def test_a_sweep_that_lacks_settings_says_which_route_is_left_out(parts, renderer, tmp_path, capsys):
    path = tmp_path / "dwell_time_sweep.h5"
    write_sweep(path, parts[2], "dwell_time", [1e-6, 4e-6])
    with h5py.File(path, "a") as file:
        values = file["metadata_raw"][:, 1]
        del file["metadata_raw"]
        file["dwell_time_s"] = values
    rows = {r["name"] for r in sweep_rows(sweep_cases(path), renderer, {**COMMON, "split": None})}
    assert "style.sweep.psnr.dwell_time.generator" in rows and "style.sweep.psnr.dwell_time.analytic" not in rows
    assert "analytic: left out" in capsys.readouterr().out
    known = Acquisition(detector_gain=32.0, detector_offset=-1.2)
    rows = {r["name"] for r in sweep_rows(sweep_cases(path, known), renderer, {**COMMON, "split": None})}
    assert "style.sweep.psnr.dwell_time.analytic" in rows
    write_sweep(tmp_path / "gain.h5", parts[2], "detector_gain", [30.0, 33.0], np.float32)
    with pytest.raises(OutOfRangeError, match="not 16-bit counts"):
        sweep_cases(tmp_path / "gain.h5")


def test_images_are_drawn_over_sessions_first(parts):
    data = parts[0]
    sessions = np.asarray(data.sessions)
    count = len(np.unique(sessions))
    chosen = chosen_images(data, count)
    assert len(np.unique(sessions[chosen])) == count and len(chosen) == count
    assert len(chosen_images(data, 10**6)) == len(data)


def test_the_command_writes_rows_of_a_sweep(parts, tmp_path, monkeypatch, capsys):
    from cimp_core import weights
    from cimp_core.results import read_results

    translator = Translator(TranslatorConfig(channels=8, blocks=1, hidden=16))
    weights.save(translator, tmp_path / "w.safetensors", {})
    write_sweep(tmp_path / "offset_sweep.h5", parts[2], "detector_offset", [-1.6, -1.2])
    arguments = ["--weights", str(tmp_path / "w.safetensors"), "--sweep", str(tmp_path / "offset_sweep.h5")]
    monkeypatch.setattr("sys.argv", ["restyling", *arguments, "--out", str(tmp_path / "r.json")])
    restyling.main()
    rows = {r["name"]: r for r in read_results(tmp_path / "r.json")}
    assert rows["style.sweep.histogram.detector_offset.generator"]["pool"] == 2
    assert "style.sweep.histogram.detector_offset.generator" in capsys.readouterr().out


def test_variants_are_trained_alike_but_for_what_they_lack_and_scored_side_by_side(parts, tmp_path, renderer):
    base = restyling_ablation.PROFILES["smoke"]
    configs = {n: restyling_ablation.variant_config(n, base, 4) for n in restyling_ablation.VARIANTS}
    for name, config in configs.items():
        different = {f for f in vars(base) if getattr(config, f) != getattr(configs["reference"], f)}
        assert different == set(restyling_ablation.VARIANTS[name])
    encoder = renderer.conditioner.encoder
    made = restyling_ablation.train_variants(parts[0], parts[1], base, 4, tmp_path, encoder=encoder, pairs=8)
    assert set(made) == set(configs) and made["no_condition"].translator.config.condition == 0
    rows = restyling_ablation.variant_rows(made, parts[0], parts[1], COMMON, images=2)
    names = {r["name"] for r in rows}
    assert not any(row_faults(r) for r in rows)
    for name in (*configs, "unchanged", "analytic", "recording"):
        assert f"ablation.style.psnr.joint.{name}" in names and f"ablation.style.gap.own.{name}" in names

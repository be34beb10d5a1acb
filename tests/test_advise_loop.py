"""The loop: settings out, frames in, and an end for everything that can go wrong."""

import numpy as np
import pytest
from advise_frames import SETTINGS, Bench, lattice

import cimp_core as cimp
from cimp_core.advising import End, Limits, Range, exposures, parse_goal
from cimp_core.advising.predict import dose_of
from cimp_core.advising.simulated import SimulatedMicroscope, obtained_snr
from cimp_core.digital_twin import make_twin, scan_of
from cimp_core.errors import OutOfRangeError

QUICK = SETTINGS.replace(dwell_time=0.5e-6)
LIMITS = Limits(dwell_time=Range(low=1e-7, high=1e-4))


def driven(loop, bench, most=40):
    """Drive a loop as a microscope's script would; a loop that does not end fails here."""
    for number, settings in enumerate(loop):
        assert number < most, "the loop does not end"
        loop.give(bench.expose(settings))
    return loop.outcome


def start(goal="snr 8", limits=LIMITS, **changes):
    return exposures(goal, limits, start=QUICK.replace(**changes), max_frames=6)


@pytest.mark.parametrize("goal", ["snr 8", "column precision 2 pm"])
def test_the_goal_is_reached_with_few_frames_and_little_more_dose_than_needed(goal):
    bench, loop = Bench(), start(goal)
    outcome = driven(loop, bench)
    assert outcome.state is End.REACHED and outcome.frames == len(bench.asked) <= 4
    assert outcome.dose == pytest.approx(sum(dose_of(s) for s in bench.asked))
    together = sum(s.dwell_time for s in bench.asked)
    single = cimp.advise(Bench(seed=3).expose(QUICK), goal, acquisition=QUICK)
    assert together < 1.1 * single.settings.dwell_time
    if goal == "snr 8":
        truth = loop.combined.how.of([bench.expected(s) for s in bench.asked])
        assert 8 <= obtained_snr(loop.combined.frame, truth) < 9.3


def test_it_is_a_generator_to_who_wants_one():
    bench, loop = Bench(), start()
    settings = next(loop)
    assert settings == QUICK
    with pytest.raises(StopIteration) as end:
        while True:
            settings = loop.send(bench.expose(settings))
    assert end.value.value is loop.outcome and loop.outcome.state is End.REACHED
    with pytest.raises(StopIteration):
        next(loop)
    loop.give(bench.expose(QUICK))  # after the end, nothing happens
    assert loop.outcome.frames == len(bench.asked) - 1 and list(loop) == []


@pytest.mark.parametrize(
    "frame",
    [np.full((192, 192), np.nan), np.zeros((5, 5)), np.zeros(3), None, np.full((192, 192), 9, np.uint16)],
    ids=["nan", "small", "row", "none", "blank"],
)
def test_bad_frames_are_asked_for_again_and_end_it_if_they_last(frame):
    bench, loop = Bench(), start()
    loop.give(frame) if next(loop) else None
    assert next(loop) == QUICK and loop.outcome is None
    assert driven(loop, bench).state is End.REACHED
    loop = start()
    for _ in loop:
        loop.give(frame)
    assert loop.outcome.state is End.BAD_FRAMES and "3 times" in loop.outcome.reason and loop.outcome.frames == 0
    assert loop.outcome.dose == pytest.approx(3 * dose_of(QUICK))  # the specimen got it


def test_a_frame_of_another_shape_is_bad():
    bench, loop = Bench(), start()
    loop.give(bench.expose(next(loop)))
    asked = next(loop)
    loop.give(bench.expose(asked)[:100])
    assert loop.outcome is None and next(loop) == asked


def test_a_saturated_frame_turns_the_gain_down():
    bench, loop = Bench(), start(detector_gain=46.0)
    gains = []
    for settings in loop:
        gains.append(settings.detector_gain)
        loop.give(bench.expose(settings))
    assert gains[0] == 46.0 and gains[1] < 46.0 and loop.outcome.state in (End.REACHED, End.BAD_FRAMES)


def test_late_frames_are_not_taken_for_those_asked_for():
    bench, loop = Bench(), start()
    for settings in loop:
        loop.give(bench.expose(settings), acquisition=settings)
        if loop.outcome is None:
            loop.give(bench.expose(QUICK), acquisition=QUICK)  # comes again, when others were asked for
    assert loop.outcome.state is End.REACHED and loop.outcome.frames < len(bench.asked)
    assert loop.outcome.dose == pytest.approx(sum(dose_of(s) for s in bench.asked))
    loop = start()
    loop.give(bench.expose(next(loop)))
    for _ in loop:
        loop.give(bench.expose(QUICK), acquisition=QUICK)
    assert loop.outcome.state is End.LATE_FRAMES and "dwell_time" in loop.outcome.reason and loop.outcome.frames == 1


def test_refused_settings_are_replaced_by_others():
    bench, loop, refused = Bench(), start(), []
    for settings in loop:
        if 3e-6 < settings.dwell_time < 60e-6 and len(refused) < 2:
            refused.append(settings.dwell_time)
            loop.refuse("not a multiple of 3 µs")
            continue
        loop.give(bench.expose(settings))
    assert len(refused) == 2 and refused[0] != refused[1] and loop.outcome.state is End.REACHED
    loop = start()
    for _ in loop:
        loop.refuse("beam is blanked")
    assert loop.outcome.state is End.REFUSED and "beam is blanked" in loop.outcome.reason


def test_a_lost_specimen_ends_it():
    for gone in (np.full((192, 192), 0.001), np.full((192, 192), 0.05)):
        bench = Bench(changes={2: gone})
        outcome = driven(start(), bench)
        assert outcome.state is End.LOST and outcome.frames == 1 and len(bench.asked) == 2, str(outcome)


def test_another_area_is_not_added():
    y, x = np.mgrid[:192, :192]
    first = 0.02 + 0.1 * np.exp(-((y - 60) ** 2 + (x - 50) ** 2) / 900)
    other = 0.02 + 0.06 * ((x // 24 + y // 40) % 2)
    outcome = driven(start("snr 12"), Bench(first, changes={2: other}))
    assert outcome.state is End.LOST and "does not show the area" in outcome.reason


def test_what_cannot_be_reached_ends_it_with_what_can():
    bench = Bench()
    outcome = driven(start("snr 60", Limits(dwell_time=[0.5e-6, 2e-6])), bench)
    assert outcome.state is End.OUT_OF_REACH and "at most snr" in outcome.reason and len(bench.asked) == 1
    dose = 4 * dose_of(QUICK)
    bench = Bench()
    outcome = driven(start("snr 20", LIMITS.model_copy(update={"max_dose": dose})), bench)
    assert outcome.state is End.OUT_OF_REACH and outcome.dose <= dose


def test_nothing_to_see_ends_it_within_the_limits():
    bench = Bench(np.full((96, 96), 0.05))
    outcome = driven(start(limits=Limits(dwell_time=Range(low=1e-7, high=1e-5))), bench)
    assert outcome.state is End.NOTHING_SEEN and "anything but noise" in outcome.reason
    assert max(s.dwell_time for s in bench.asked) <= 1e-5
    y, x = np.mgrid[:128, :128]
    hill = 0.02 + 0.05 * np.exp(-((y - 60) ** 2 + (x - 50) ** 2) / 900)
    outcome = driven(start("column precision 3 pm", Limits(dwell_time=[0.5e-6, 4e-6])), Bench(hill))
    assert outcome.state is End.NOTHING_SEEN and "columns" in outcome.reason


def test_settings_without_frames_end_it():
    loop = start()
    assert [next(loop) for _ in range(3)] == [QUICK] * 3
    with pytest.raises(StopIteration):
        next(loop)
    assert loop.outcome.state is End.NO_FRAME and loop.outcome.dose == 0
    loop = start()
    next(loop)
    loop.stop("enough seen")
    assert loop.outcome.state is End.STOPPED and "enough seen" in str(loop.outcome) and list(loop) == []


def test_impossible_starts_are_refused():
    for changes, limits, message in (
        ({"dwell_time": None}, LIMITS, "dwell_time is not known"),
        ({"dwell_time": 1.0}, LIMITS, "dwell_time outside"),
        ({"beam_current": None}, LIMITS.model_copy(update={"max_dose": 1e22}), "beam_current"),
    ):
        with pytest.raises(OutOfRangeError, match=message):
            start(limits=limits, **changes)
    with pytest.raises(OutOfRangeError, match="pixel_size"):
        start("column precision 3 pm", pixel_size=None)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    path = make_twin(tmp_path_factory.mktemp("twin") / "t.h5", 24, 128, 0, workers=1)
    return cimp.open_dataset(path)


def test_the_simulated_microscope_drifts(twin):
    own = twin.acquisition(0)
    here, there = (scan_of(twin, 0, own, seed=2, moved=m)[1] for m in ((0.0, 0.0), (0.0, 8 * own.pixel_size)))
    # The content moves to the right by eight pixels, but for what the fly-back does to the start of a row.
    np.testing.assert_allclose(there[:, 40:], here[:, 32:-8], rtol=0.05, atol=0.1 * here.std())
    still = SimulatedMicroscope(twin, 0, drift=0.0)
    one, two = still.expose(own), still.expose(own)
    assert one.dtype == np.uint16 and one.shape == (128, 128) and not np.array_equal(one, two)
    assert still.dose == pytest.approx(2 * dose_of(own))
    shaking = np.std(still.expected[1] - still.expected[0])
    adrift = SimulatedMicroscope(twin, 0, drift=20.0)
    adrift.expose(own), adrift.expose(own)
    np.testing.assert_array_equal(adrift.expected[0], still.expected[0])
    assert np.std(adrift.expected[1] - adrift.expected[0]) > 3 * shaking


def test_a_loop_on_the_twin_gets_what_it_says(twin):
    ends = []
    for i in range(0, 24, 3):
        microscope = SimulatedMicroscope(twin, i, seed=1)
        loop = exposures("snr 3", LIMITS, start=microscope.settings.replace(dwell_time=1e-6))
        outcome = driven(loop, microscope)
        assert outcome.dose == pytest.approx(microscope.dose)
        ends.append(outcome.state)
        if outcome.state is End.REACHED:
            obtained = microscope.obtained(parse_goal("snr 3"), loop.combined.how, loop.numbers)
            assert obtained > 2.6 and outcome.quality.snr.value == pytest.approx(obtained, rel=0.25)
    assert ends.count(End.REACHED) >= 3


def test_columns_move_with_a_lattice_of_few_pixels_a_period():
    """Registered by their spots, where nothing coarser is seen."""
    fine = Bench(lattice(spacing=6.0, width=1.3))
    outcome = driven(start("snr 6"), fine)
    assert outcome.state is End.REACHED and outcome.frames == len(fine.asked)

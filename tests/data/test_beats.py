"""Data sets whose examples are beats, and recordings that keep their beats beside them."""

import csv
import dataclasses

import numpy as np
import pytest
from tiny_cohort import KEY

from ecgjax.core.spec import ImageSpec
from ecgjax.data.build import build
from ecgjax.data.cohorts.base import Acquisition, Item, Target
from ecgjax.data.manifest import read_manifest
from ecgjax.data.pipeline import evaluation_batches, train_batches
from ecgjax.data.shards import read_split
from ecgjax.formats.recording import Recording
from ecgjax.signals.ecg import band_pass, condition
from ecgjax.signals.stft import log_image

RATE_HZ = 120.0
PEAKS = np.arange(60, 1200, 110)  # One beat in 0.92 s; the first and the last have no whole window.
IMAGE = {"span": 128, "win": 32, "hop": 8, "n_fft": 64, "bins": 16, "frames": 16, "mean": None, "std": None}
SETTINGS = {
    "conditioning_ecg": {"baseline_lambda": None, "clip_sigma": None, "normalise": "range"},
    "conditioning_cmr": None,
    "rate_hz": RATE_HZ,
    "band_hz": (0.5, 40.0),
    "leads": ("MLII",),
    "examples_per_shard": 7,
    "key": KEY,
    "progress": False,
}


@dataclasses.dataclass(frozen=True)
class Persons:
    """Ten seconds of six persons at another rate than asked for; every item is a beat, or every one a person."""

    beats: bool = True
    name: str = "persons"
    targets: tuple[Target, ...] = (Target("odd", "binary"),)
    read: list = dataclasses.field(default_factory=list)
    last: dict = dataclasses.field(default_factory=dict)

    def items(self):
        split = ("train", "train", "train", "train", "val", "test")
        for i in range(6):
            for beat in range(len(PEAKS) if self.beats else 1):
                yield Item(f"person {i}", f"person {i} beat {beat}", split[i])

    def load(self, item):
        person = int(item.subject.split()[1])
        if self.last.get("person") != person:
            self.last.update(person=person, recording=recording(person))
            self.read.append(person)
        beat = int(item.record.split()[-1])
        place = {"beat": int(2 * PEAKS[beat]), "rr_s": (np.nan, 0.9, 1.0, 1.1)} if self.beats else {}
        return Acquisition(self.last["recording"], None, {"odd": float(person % 2)}, **place)


def recording(person):
    t = np.arange(2400) / 240.0
    rng = np.random.default_rng(person)
    beats = sum(np.exp(-0.5 * ((t - p / RATE_HZ) / 0.012) ** 2) for p in PEAKS)
    wander = 0.3 * np.sin(2 * np.pi * 0.2 * t)
    signal = (1 + 0.2 * person) * beats + wander + 0.01 * rng.normal(size=t.size)
    return Recording(np.stack([0 * signal, signal]), 240.0, ("V1", "MLII"))


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    directory = tmp_path_factory.mktemp("beats") / "data"
    cohort = Persons()
    build(cohort, directory, ecg_length=128, window="beat", image=IMAGE, **SETTINGS)
    return directory, cohort


def test_an_example_is_the_window_round_a_beat_of_the_conditioned_recording(beats):
    directory, _ = beats
    manifest = read_manifest(directory)
    fields = read_split(directory, manifest, "test")
    whole = recording(5).signal_mv[1:]
    signal = condition(band_pass(whole[:, ::2], RATE_HZ, (0.5, 40.0)), **SETTINGS["conditioning_ecg"]).signal
    got = fields["ecg"] * fields["ecg_step"][:, None, None]
    assert len(got) == len(PEAKS) - 2
    for window, peak in zip(got, PEAKS[1:-1], strict=True):
        want = signal[:, peak - 64 : peak + 64]
        np.testing.assert_allclose(window, want, atol=0.03)  # Resampled, not thinned.
        assert abs(int(window.argmax()) - 64) <= 1
    np.testing.assert_array_equal(fields["rr"], np.tile(np.float32([np.nan, 0.9, 1.0, 1.1]), (len(got), 1)))


def test_beats_without_a_whole_window_are_counted(beats):
    directory, _ = beats
    assert read_manifest(directory).rejects == {"beat edge": 12}
    with open(directory / "rejects.csv") as file:
        assert "no whole window of 128 samples" in next(csv.DictReader(file))["message"]


def test_a_recording_is_read_once_for_all_its_beats(beats):
    _, cohort = beats
    assert cohort.read == [0, 1, 2, 3, 4, 5]


def test_the_image_is_standardised_by_the_train_split(beats):
    directory, _ = beats
    manifest = read_manifest(directory)
    fields = read_split(directory, manifest, "train")
    image = manifest.input_spec.ecg.image
    pixels = log_image(fields["ecg"] * fields["ecg_step"][:, None, None].astype(np.float64), image)
    assert image.mean == pytest.approx(pixels.mean(), rel=1e-10)
    assert image.std == pytest.approx(pixels.std(), rel=1e-10)
    again = build(Persons(), directory, ecg_length=128, window="beat", image=IMAGE, **SETTINGS)
    assert again.input_spec == manifest.input_spec


def test_batches_hold_the_times_to_the_neighbours(beats):
    directory, _ = beats
    batch = next(iter(train_batches(directory, batch_size=4, seed=0)))
    assert batch["ecg"].shape == (4, 1, 128)
    assert batch["rr"].shape == (4, 4)
    with pytest.raises(
        ValueError, match=r"config.data.crop is 64, but examples of 128 samples are cut round"
    ):
        train_batches(directory, batch_size=4, seed=0, crop=64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "data"
    image = {**IMAGE, "mean": -4.0, "std": 2.0}
    build(Persons(beats=False), directory, ecg_length=1200, beats=12, image=image, **SETTINGS)
    return directory


def test_a_recording_keeps_the_beats_that_an_image_fits_round(whole):
    batch = next(iter(evaluation_batches(whole, batch_size=2, split="train")))
    assert batch["beats"].shape == (2, 12)
    for row in batch["beats"]:
        np.testing.assert_allclose(row[row >= 0], PEAKS[1:-1], atol=1)
        assert (row[len(PEAKS) - 2 :] == -1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beats": 3}, "beats many"),
        ({"beats": 12, "ecg_length": 128}, "beats none"),
    ],
)
def test_recordings_with_other_than_usable_beats_are_rejected(tmp_path, settings, message):
    image = {**IMAGE, "mean": -4.0, "std": 2.0}
    settings = {"ecg_length": 1200, **SETTINGS, **settings}
    with pytest.raises(ValueError, match=f"All 6 items .* were rejected: {{'{message}': 6}}"):
        build(Persons(beats=False), tmp_path / "data", image=image, **settings)


def test_whole_recordings_need_the_statistics_of_the_encoder_that_will_read_them(tmp_path):
    with pytest.raises(ValueError, match=r"config.ecg.image.mean is not set.*--like=WORKDIR"):
        build(Persons(beats=False), tmp_path / "data", ecg_length=1200, beats=12, image=IMAGE, **SETTINGS)


def test_beats_are_asked_of_a_cohort_that_has_none(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"config.ecg.window is 'beat', but the cohort's items are no beats"
    ):
        build(Persons(beats=False), tmp_path / "data", ecg_length=128, window="beat", **SETTINGS)


def test_an_image_of_a_sinusoid_has_half_its_amplitude_at_its_frequency():
    spec = ImageSpec(span=256, win=64, hop=16, n_fft=64, bins=33, frames=16, log_eps=1e-9)
    t = np.arange(256)
    image = log_image(3.0 * np.cos(2 * np.pi * 8 / 64 * t + 0.4), spec)
    inner = image[:, 2:14]  # Frames that no zeros beyond the ends reach.
    np.testing.assert_allclose(np.exp(inner[8]), 1.5, rtol=1e-6)
    np.testing.assert_allclose(
        np.exp(inner[[7, 9]]), 0.75, rtol=1e-6
    )  # A Hann window spreads into two neighbours.
    assert np.exp(inner[12:]).max() < 1e-8


def test_a_band_pass_takes_what_lies_outside_and_shifts_nothing():
    t = np.arange(7200) / 360.0
    slow, inside, fast = (np.sin(2 * np.pi * f * t)[None] for f in (0.05, 10.0, 120.0))
    passed = band_pass(slow + inside + fast, 360.0, (0.5, 40.0))
    middle = slice(2500, -2500)  # The filter rings for seconds at either end.
    np.testing.assert_allclose(passed[:, middle], inside[:, middle], atol=5e-3)
    with pytest.raises(ValueError, match=r"half the rate, 50.0 Hz"):
        band_pass(inside, 100.0, (0.5, 50.0))


def test_ranges_scale_to_the_middle_of_each_lead():
    rng = np.random.default_rng(0)
    signal = rng.normal([[1.0], [-2.0]], [[0.5], [3.0]], (2, 5000))
    made = condition(signal, baseline_lambda=None, clip_sigma=None, normalise="range").signal
    low, middle, high = np.percentile(made, (2.5, 50, 97.5), axis=1)
    np.testing.assert_allclose(middle, 0, atol=1e-6)
    np.testing.assert_allclose(high - low, 1, rtol=1e-5)

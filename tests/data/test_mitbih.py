import collections
import pathlib
import pickle
import struct

import numpy as np
import pytest

from ecgjax.data import build
from ecgjax.data.cohorts.base import Cohort, Item, RejectedError
from ecgjax.data.cohorts.mitbih import MitbihCohort
from ecgjax.data.cohorts.mitbih_beats import CLASSES, DS1, DS2, PACED, intervals, read_beats
from ecgjax.formats import wfdb
from ecgjax.formats.wfdb_annotations import SYMBOLS
from ecgjax.signals.beats import r_peaks

CODE = {symbol: code for code, symbol in SYMBOLS.items()}


def write_record(directory: pathlib.Path, name: str, symbols: str, *, leads=("MLII", "V1"), rate_hz=360):
    """A record whose beat i is symbol i at sample 500 (i + 1); signal j is constant but for a ramp."""
    length = 500 * (len(symbols) + 1)
    samples = [np.arange(length) % 50 + 100 * j for j in range(len(leads))]
    lines = [f"{name} {len(leads)} {rate_hz} {length}"]
    for j, lead in enumerate(leads):
        checksum = (samples[j].sum() + 32768) % 65536 - 32768
        lines.append(f"{name}.dat 16 200(0)/mV 16 0 {samples[j][0]} {checksum} 0 {lead}")
    (directory / f"{name}.hea").write_text("\n".join(lines))
    (directory / f"{name}.dat").write_bytes(np.stack(samples, 1).astype("<i2").tobytes())
    words = [CODE[symbol] << 10 | 500 for symbol in symbols]
    (directory / f"{name}.atr").write_bytes(struct.pack(f"<{len(words) + 1}H", *words, 0))


@pytest.fixture
def directory(tmp_path):
    write_record(tmp_path, "100", "NNA+NN")
    write_record(tmp_path, "101", "NNQeF")
    write_record(tmp_path, "114", "LLV", leads=("V5", "MLII"))
    write_record(tmp_path, "118", "RRA")
    write_record(tmp_path, "201", "NaV")
    write_record(tmp_path, "202", "NNAj")
    return tmp_path


def cohort(directory, **settings):
    return MitbihCohort(str(directory), **{"validation": ("118",), **settings})


def splits(listed):
    """Records by split."""
    found = collections.defaultdict(set)
    for item in listed.items():
        found[item.split].add(item.record.partition("/")[0])
    return dict(found)


def test_it_is_a_cohort(directory):
    assert isinstance(cohort(directory), Cohort)


def test_beats_are_items_and_other_annotations_are_not(directory):
    items = [item for item in cohort(directory).items() if item.record.startswith("100/")]
    assert items == [Item("100", f"100/{sample}", "test") for sample in (500, 1000, 1500, 2500, 3000)]


def test_ds1_trains_but_for_the_validation_records_and_ds2_tests(directory):
    assert splits(cohort(directory)) == {"train": {"101", "114"}, "val": {"118"}, "test": {"100", "202"}}


@pytest.mark.parametrize(
    ("rule", "train", "test", "note"),
    [
        (
            "drop_201",
            {"101", "114"},
            {"100", "202"},
            "record 201 is left out, its person is in the other half",
        ),
        ("drop_202", {"101", "114", "201"}, {"100"}, "record 202 is left out"),
        (
            "as_published",
            {"101", "114", "201"},
            {"100", "202"},
            "records 201 and 202 are one person and both used",
        ),
    ],
)
def test_the_person_of_two_records_is_in_one_half_or_said_to_be_in_both(directory, rule, train, test, note):
    got = cohort(directory, same_person=rule)
    assert (splits(got)["train"], splits(got)["test"]) == (train, test)
    assert any(note in line for line in got.notes)
    people = {item.record[:3]: item.subject for item in got.items()}
    assert people.get("202", "201") == ("202" if rule == "as_published" else "201")


def test_one_hot_targets_by_label_set(directory):
    def label(record, **settings):
        of = cohort(directory, **settings)
        values = of.load(next(item for item in of.items() if item.record == record)).targets
        assert list(values) == [target.name for target in of.targets]
        assert sorted(values.values()) == [0.0] * (len(values) - 1) + [1.0]
        return max(values, key=values.get)

    assert [label(r) for r in ("114/500", "101/2000", "101/2500", "100/1500", "202/2000")] == list("NNFSN")
    bbb = {"labels": "bbb"}
    assert [label(r, **bbb) for r in ("114/500", "118/500", "101/2000", "118/1500")] == list("LRNS")
    assert label("101/1500", labels="aami5") == "Q"
    leaky = {"labels": "lab2020", "paced": True, "protocol": "lab2020-leaky"}
    assert [label(r, **leaky) for r in ("114/500", "118/500", "114/1500")] == list("LRV")


def test_every_symbol_has_one_class_in_a_label_set():
    for classes in CLASSES.values():
        symbols = "".join(classes.values())
        assert len(symbols) == len(set(symbols))


def test_what_is_left_out_is_noted(directory):
    notes = " | ".join(cohort(directory).notes)
    assert "38 of 43 records are absent: 103, 105, 106" in notes
    assert "beats without a class in aami are left out: Q 1" in notes
    write_record(directory, "106", "NN", leads=("V5", "V2"))
    assert "records without lead MLII are left out: 106" in " | ".join(cohort(directory).notes)


def test_the_lead_is_chosen_by_name(directory):
    got = cohort(directory)
    recording = got.load(Item("114", "114/1000", "train")).ecg
    assert recording.leads == ("MLII",)
    np.testing.assert_allclose(recording.signal_mv[0, :3], np.array([100, 101, 102]) / 200)


def test_beats_of_a_record_share_one_recording(directory):
    got = cohort(directory)
    first, second = (got.load(Item("114", f"114/{sample}", "train")) for sample in (500, 1000))
    assert first.ecg is second.ecg
    assert (first.beat, second.beat) == (500, 1000)


def test_intervals_before_after_nearby_and_in_the_record():
    # Ten intervals of one second, then one of 0.5 s, a pause of 1.5 s and one of 1 s.
    samples = np.cumsum([10, *[360] * 10, 180, 540, 360])
    rr = intervals(samples)
    np.testing.assert_allclose(rr[0], [np.nan, 1, np.nan, 13 / 13])
    np.testing.assert_allclose(rr[1], [1, 1, np.nan, 1])
    np.testing.assert_allclose(rr[2], [1, 1, 1, 1])
    np.testing.assert_allclose(rr[11], [0.5, 1.5, 1, 1])  # The early beat is not in its own neighbourhood.
    np.testing.assert_allclose(rr[12], [1.5, 1, 9.5 / 10, 1])
    np.testing.assert_allclose(rr[13], [1, np.nan, 10 / 10, 1])
    assert np.isnan(intervals(samples[:1])).all()
    assert intervals(samples[:0]).shape == (0, 4)


def test_intervals_count_beats_without_a_class_and_no_other_annotation(directory):
    got = cohort(directory)
    step = 500 / 360
    np.testing.assert_allclose(
        got.load(Item("101", "101/2000", "train")).rr_s[:2], [step, step]
    )  # After a Q.
    np.testing.assert_allclose(
        got.load(Item("100", "100/1500", "test")).rr_s[:2], [step, 2 * step]
    )  # Before a +.


def test_folds_hold_whole_people_once_and_spread_classes(directory):
    for record, symbols in {"103": "NNS", "105": "NNF", "106": "VVN", "108": "VFS", "109": "NNNN"}.items():
        write_record(directory, record, symbols)
    tested = []
    for fold in range(4):
        got = cohort(directory, protocol="folds", folds=4, fold=fold)
        of_split = splits(got)
        tested += of_split["test"]
        assert not of_split["test"] & of_split["val"]
        assert not of_split["test"] & of_split["train"]
        of_person = collections.defaultdict(set)
        for item in got.items():
            of_person[item.subject].add(item.split)
        assert all(len(seen) == 1 for seen in of_person.values())
        assert ("201" in of_split["test"]) == ("202" in of_split["test"])
        f_in_test = sum(got.load(item).targets["F"] for item in got.items() if item.split == "test")
        assert f_in_test <= 1  # Three F in three people.
    assert sorted(tested) == sorted(
        [*("100", "101", "114", "118", "201", "202"), *("103", "105", "106", "108", "109")]
    )


def test_the_random_split_must_be_asked_for_by_its_leak_and_says_so(directory):
    settings = {"labels": "lab2020", "paced": True}
    got = cohort(directory, **settings, protocol="lab2020-leaky")
    assert got.name == "mitbih-leaky"
    assert "LEAKY: train, val and test share people" in got.notes
    items = got.items()
    assert {item.subject for item in items} == {item.record for item in items}
    assert [item.split for item in items] == [item.split for item in got.items()]
    assert [i.split for i in items] != [
        i.split for i in cohort(directory, **settings, protocol="lab2020-leaky", seed=1).items()
    ]
    assert cohort(directory, **settings, protocol="folds", folds=3).name == "mitbih"


def test_shares_of_the_random_split(directory):
    write_record(directory, "100", "N" * 3000)
    drawn = cohort(directory, protocol="lab2020-leaky", fractions=(0.6, 0.1, 0.3)).items()
    share = [np.mean([item.split == split for item in drawn]) for split in ("train", "val", "test")]
    np.testing.assert_allclose(share, [0.6, 0.1, 0.3], atol=0.03)  # Three standard deviations of 3000 draws.


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (
            {"labels": "lab2020"},
            "labels is 'lab2020', which has a class of paced beats; set config.cohort.paced",
        ),
        ({"paced": True}, "paced is True, but the paced records are in neither DS1 nor DS2"),
        ({"fold": 5}, "fold is 5 of 5 folds"),
        ({"folds": 2}, "fold is 0 of 2 folds; there must be at least 3"),
        ({"protocol": "folds", "folds": 6}, "folds is 6, the records at hand are of fewer people"),
        ({"fractions": (0.5, 0.1, 0.1)}, "must be shares that sum to 1"),
        ({"validation": ("999",)}, "validation names '999'; choose from 101, 106"),
        ({"validation": ("100",)}, "validation names '100'; choose from 101, 106"),
        ({"validation": ("119",)}, "validation names '119', but it is not there; fetch it"),
        ({"validation": ("201",)}, "validation names '201', which config.cohort.same_person drops"),
        ({"records": ("100", "102")}, "records names '102', a paced record"),
        ({"records": ("100", "101")}, "validation names '118', which config.cohort.records leaves out"),
        ({"records": ("118", "119")}, "records names '119', but it is not there"),
        ({"records": ("118", "202", "201")}, "records names '201', which config.cohort.same_person drops"),
        ({"lead": "V9", "validation": ()}, "holds none of the 43 records with lead V9"),
        ({"lead": "V5"}, "validation names '118', but it has no lead V5"),
    ],
)
def test_impossible_settings_are_refused_by_their_path(directory, settings, rule):
    with pytest.raises(ValueError, match=rule):
        cohort(directory, **settings)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config.cohort.directory: .* holds none of the 43 records"):
        MitbihCohort(str(tmp_path), validation=())


def test_damaged_records_are_named(directory):
    (directory / "101.dat").write_bytes((directory / "101.dat").read_bytes()[:-2])
    got = cohort(directory)
    for sample in (500, 1000):
        with pytest.raises(RejectedError, match=r"101\.dat: .*truncated"):
            got.load(Item("101", f"101/{sample}", "train"))
    write_record(directory, "106", "NN", rate_hz=250)
    with pytest.raises(wfdb.WfdbError, match=r"106\.hea: is at 250 Hz"):
        cohort(directory)
    (directory / "106.atr").unlink()
    write_record(directory, "106", "NN")
    (directory / "106.atr").write_bytes(struct.pack("<3H", CODE["N"] << 10 | 9, CODE["V"] << 10, 0))
    with pytest.raises(wfdb.WfdbError, match=r"106\.atr: two beats are at sample 9"):
        cohort(directory)


def test_items_of_another_cohort_are_a_mistake_of_the_caller(directory):
    for record in ("999/500", "101/501", "101/1500", "101"):  # 101/1500 is a Q.
        with pytest.raises(ValueError, match="is no beat of these records"):
            cohort(directory).load(Item("101", record, "train"))


def test_the_cohort_survives_pickling(directory):
    got = cohort(directory)
    copy = pickle.loads(pickle.dumps(got))
    assert (copy.items(), copy.targets, copy.notes) == (got.items(), got.targets, got.notes)
    item = got.items()[0]
    assert copy.load(item).targets == got.load(item).targets


def test_a_data_set_says_how_it_split_and_what_it_left_out(directory, tmp_path_factory):
    """Edge beats are rejected and counted; neither the directory nor a record's name is in the manifest's config."""
    rejected = {}
    for name, settings in {"honest": {}, "leaky": {"protocol": "lab2020-leaky"}}.items():
        got = build.build(
            cohort(directory, **settings),
            tmp_path_factory.mktemp(name) / "data",
            conditioning_ecg={"baseline_lambda": None, "clip_sigma": None, "normalise": "range"},
            conditioning_cmr=None,
            ecg_length=1024,
            rate_hz=360.0,
            leads=("MLII",),
            band_hz=(0.5, 40.0),
            window="beat",
            progress=False,
        )
        rejected[name] = got.rejects
        assert str(directory) not in str(got.config)
        assert got.cohort == {"honest": "mitbih", "leaky": "mitbih-leaky"}[name]
        assert got.config["cohort"]["protocol"] == {"honest": "ds1ds2"}.get(name, "lab2020-leaky")
        assert any("LEAKY" in note for note in got.config["cohort"]["notes"]) == (name == "leaky")
    # 500 samples before the first beat and after the last are fewer than 512: two of every record.
    assert rejected == {"honest": {"beat edge": 10}, "leaky": {"beat edge": 12}}


AAMI = {
    # N, S, V, F, Q, as counted in the annotation files of all 48 records.
    "DS1": (45866, 944, 3788, 415, 8),
    "DS2": (44259, 1837, 3221, 388, 7),
    "paced": (506, 0, 227, 0, 8028),
}
SYMBOL_TOTALS = (
    *(("N", 75052), ("L", 8075), ("R", 7259), ("V", 7130), ("/", 7028), ("A", 2546), ("f", 982), ("F", 803)),
    *(("j", 229), ("a", 150), ("E", 106), ("J", 83), ("Q", 33), ("e", 16), ("S", 2)),
)
AAMI_OF_THE_30_SHARED = (62948, 1049, 5717, 429, 10)
BRANCH_BLOCKS = {"109": ("L", 2492), "207": ("L", 1457), "111": ("L", 2123), "214": ("L", 2003)}


@pytest.fixture(scope="module")
def real(shared_data):
    if not (shared_data / "mitbih" / "100.hea").is_file():
        pytest.skip(f"no mitbih under {shared_data}")
    return shared_data / "mitbih"


@pytest.fixture(scope="module")
def counts(real):
    """Symbols of every record that is there."""
    there = [record for record in (*DS1, *DS2, *PACED) if (real / f"{record}.hea").is_file()]
    return {record: collections.Counter(read_beats(real / record).symbols) for record in there}


def aami(counters):
    total = sum(counters, collections.Counter())
    return tuple(sum(total[s] for s in symbols) for symbols in CLASSES["aami5"].values())


def test_real_beats_are_those_of_the_literature(counts):
    groups = {"DS1": DS1, "DS2": DS2, "paced": PACED}
    whole = {name: records for name, records in groups.items() if set(records) <= set(counts)}
    assert "DS1" in whole
    for name, records in whole.items():
        assert aami(counts[record] for record in records) == AAMI[name]
    if len(counts) == 48:
        assert sum(counts.values(), collections.Counter()) == dict(SYMBOL_TOTALS)
    if set(counts) == {*DS1, *("100", "202", "212", "214", "219", "221", "228", "233")}:
        assert aami(counts.values()) == AAMI_OF_THE_30_SHARED
    for record, (symbol, count) in BRANCH_BLOCKS.items():
        if record in counts:
            assert counts[record][symbol] == count
    assert {record for record in counts if counts[record]["L"]} <= set(BRANCH_BLOCKS)
    assert {record for record in counts if counts[record]["R"]} <= {"118", "124", "207", "212", "231", "232"}


LEADS = {
    # Where they are not MLII and V1, in the order of the file.
    **dict.fromkeys(("100", "123"), ("MLII", "V5")),
    **dict.fromkeys(("103", "117"), ("MLII", "V2")),
    **{"124": ("MLII", "V4"), "114": ("V5", "MLII"), "102": ("V5", "V2"), "104": ("V5", "V2")},
}


def test_real_records_are_half_an_hour_of_the_leads_of_the_literature_and_sum_to_their_checksums(real):
    for path in sorted(real.glob("*.hea")):
        header, recording = wfdb.read_header(path), wfdb.read(path)
        assert recording.leads == LEADS.get(path.stem, ("MLII", "V1"))
        assert (recording.signal_mv.shape, recording.rate_hz) == ((2, 650_000), 360.0)
        counts = np.rint(recording.signal_mv * 200 + 1024).astype(np.int64)  # 200 a mV about 1024.
        sums = [(int(row.sum()) + 32768) % 65536 - 32768 for row in counts]
        assert sums == [signal.checksum for signal in header.signals]


def test_real_splits_share_nobody_and_lose_no_beat(real, counts):
    got = MitbihCohort(str(real))
    items = got.items()
    used = {record for record in counts if record not in (*PACED, "201")}
    assert len(items) == sum(aami(counts[record] for record in used)[:4])
    of_split = {split: {i.subject for i in items if i.split == split} for split in ("train", "val", "test")}
    assert of_split["val"] == {"203", "220", "223"}
    assert not of_split["train"] & of_split["test"]
    assert not of_split["val"] & of_split["test"]
    bbb = MitbihCohort(str(real), labels="bbb")
    assert len(bbb.items()) == len(items)


def test_r_peaks_meet_the_annotated_beats(real, counts):
    """150 ms to either side, each beat and each peak once (ANSI/AAMI EC57), lead MLII of DS1.

    Sensitivity is lowest in 208 (0.86), whose ectopic beats are small in this lead; predictivity in 207 (0.81), whose
    flutter waves are not annotated as beats.
    """
    scores = {record: detected(real / record) for record in DS1 if record in counts}
    found, missed, extra = np.sum(list(scores.values()), axis=0)
    assert found / (found + missed) > 0.98
    assert found / (found + extra) > 0.98
    poor = {
        r for r, (hit, miss, more) in scores.items() if min(hit / (hit + miss), hit / (hit + more)) < 0.95
    }
    assert poor <= {"207", "208"}


def detected(path):
    """Annotated beats found and missed, and peaks that are none."""
    truth = read_beats(path).samples
    recording = wfdb.read(path, leads=("MLII",))
    peaks = r_peaks(recording.signal_mv, recording.rate_hz)
    tolerance, found, j = 0.15 * recording.rate_hz, 0, 0
    for beat in truth:
        while j < len(peaks) and peaks[j] < beat - tolerance:
            j += 1
        if j < len(peaks) and peaks[j] <= beat + tolerance:
            found, j = found + 1, j + 1
    return found, len(truth) - found, len(peaks) - found

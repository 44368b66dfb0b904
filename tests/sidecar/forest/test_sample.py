import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.lengths import sampled, workload
from tempo_sidecar.forest.features import CLASS, WIDTH
from tempo_sidecar.forest.sample import Sample, decode_records, encode_records

ROW = np.zeros(WIDTH, dtype=np.float32)


def filled(counts, capacity=100):
    sample = Sample(np.random.default_rng(0), capacity)
    for index, name in enumerate(name for name, count in counts for _ in range(count)):
        sample.add(name, ROW, index + 1, truncated=False)
    return sample


def test_it_never_holds_more_than_its_capacity_and_comes_out_oldest_first():
    records = filled([("chat", 1000)]).records()
    assert len(records) == 100
    assert (np.diff(records.tokens) > 0).all()


def test_the_latest_are_the_likeliest():
    tokens = filled([("chat", 1000)]).records().tokens
    assert np.mean(tokens > 900) == pytest.approx(1 - np.exp(-1), abs=0.1)
    assert tokens[-1] == 1000


def test_a_flood_of_one_class_leaves_the_others_their_share():
    records = filled([("tool", 30), ("chat", 5000), ("agent", 20)]).records()
    of_class = [records.classes[int(code)] for code in records.rows[:, CLASS]]
    assert (of_class.count("tool"), of_class.count("agent"), of_class.count("chat")) == (30, 20, 50)


def test_more_classes_than_any_pool_has_are_ignored():
    sample = filled([(f"class-{number}", 1) for number in range(80)])
    assert (len(sample), len(sample.codes)) == (64, 64)


def test_a_sample_survives_the_way_through_bytes_and_into_another_sample():
    records = sampled(workload(50, seed=3, max_tokens=100)).records()
    other = Sample(np.random.default_rng(0))
    other.restore(decode_records(encode_records(records)))
    again = other.records()
    assert again.classes == records.classes
    for name in ("rows", "tokens", "truncated"):
        assert (getattr(again, name) == getattr(records, name)).all()


@given(st.binary(max_size=200))
def test_bytes_that_are_no_sample_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011  # any message will do
        decode_records(data)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_damaged_sample_is_refused_or_still_sound(place, value):
    data = bytearray(encode_records(sampled(workload(5, seed=3)).records()))
    data[place % len(data)] = value
    try:
        records = decode_records(bytes(data))
    except ValueError:
        return
    assert np.isfinite(records.rows).all()
    assert (records.tokens >= 1).all()
    assert (records.rows[:, CLASS] < len(records.classes)).all()

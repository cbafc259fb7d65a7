"""Counts by hand, in memory and over files that several processes share."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from explorank.host.step_histogram import StepHistogram


def read(histogram):
    """Return what a scrape says, by name and labels."""
    registry = CollectorRegistry()
    registry.register(histogram)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (
            sample.name.removeprefix("explorank_step_duration_seconds"),
            sample.labels["step"],
            *([sample.labels["le"]] if "le" in sample.labels else []),
        ): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("shared", [False, True])
def test_values_fall_into_their_buckets(tmp_path, shared):
    histogram = StepHistogram(tmp_path if shared else None)
    histogram.observe({"wait": 50.0, "score": 1_500.0})
    histogram.observe({"wait": 51.0, "score": 2_000_000.0})
    told = read(histogram)
    assert told["_bucket", "wait", "5e-05"] == 1.0
    assert told["_bucket", "wait", "0.0001"] == 2.0
    assert told["_bucket", "wait", "+Inf"] == told["_count", "wait"] == 2.0
    assert told["_sum", "wait"] == pytest.approx(101e-6)
    assert told["_bucket", "score", "0.001"] == 0.0
    assert told["_bucket", "score", "0.0025"] == told["_bucket", "score", "1.0"] == 1.0
    assert told["_bucket", "score", "+Inf"] == told["_count", "score"] == 2.0
    assert told["_sum", "score"] == pytest.approx(2.0015)
    assert ("_count", "explore") not in told


def test_processes_count_together(tmp_path):
    one = StepHistogram(tmp_path)
    one.observe({"log": 100.0})
    (mine,) = tmp_path.iterdir()
    (tmp_path / "steps_1.bin").write_bytes(mine.read_bytes())
    told = read(one)
    assert told["_count", "log"] == 2.0
    assert told["_sum", "log"] == pytest.approx(200e-6)


def test_a_process_that_begins_anew_under_its_number_counts_on(tmp_path):
    StepHistogram(tmp_path).observe({"log": 100.0})
    again = StepHistogram(tmp_path)
    again.observe({"log": 100.0})
    assert read(again)["_count", "log"] == 2.0

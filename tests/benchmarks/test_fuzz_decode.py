"""A fixed cut of the damaged files: no crash, no hang, no wrong frame but of the documented
kind."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def fuzz(benchmarks):
    return benchmarks("fuzz_decode")


def test_a_fixed_cut_of_damaged_files_is_read_exactly_or_refused(fuzz, tmp_path):
    """And one that was read wrongly once: after a jump in a raw stream, pictures differed."""
    notes, numbers = tmp_path / "notes.jsonl", [*range(40), 40546]

    found = fuzz.run(numbers, notes)
    text, num_alarming = fuzz.report(found)

    assert num_alarming == 0, text
    assert {one["number"] for one in found} == set(map(str, numbers))
    assert sum(one["iter_frames"] == "exact" for one in found) == 41
    assert any(one["read"] == "exact" and one["frames"] != "0" for one in found)
    # What was found is not looked for again.
    notes.write_text(json.dumps(found[0]) + "\n" + '{"torn')
    assert fuzz.run([0], notes) == found[:1]


def test_what_went_wrong_is_told(fuzz):
    good = dict.fromkeys(fuzz.ENTRANCES, "exact")
    found = [
        good | {"number": "0"},
        good | {"number": "1", "read": "wrong frames"},
        {"number": "2", "probe": "crash: SIGSEGV"},
        good | {"number": "3", "worker": "crash: SIGABRT"},
    ]

    text, num_alarming = fuzz.report(found)

    assert num_alarming == 2
    assert "1 wrong frames" in text
    assert '"probe": "crash: SIGSEGV"' in text


@pytest.mark.slow
def test_a_scorecard_shows_which_decoder_is_wrong(repo, tmp_path):
    command = [sys.executable, repo / "benchmarks" / "decoders.py", "--generated", "--frames", "6"]

    subprocess.run([*command, "--out", tmp_path / "card.md"], check=True, capture_output=True)

    card = (tmp_path / "card.md").read_text()
    assert "| octvideo | 14 | 0 files, 0 frames | 0 |" in card
    assert "| mirrored.mp4 |  | 6 wrong |" in card

"""What the packets of a stream prove of its frames, and where they prove nothing."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from coded_videos import write_clip

from octvideo.data.video.bits import Content
from octvideo.data.video.container import ffmpeg_errors
from octvideo.data.video.packets import PacketTable, look_through, map_of_known, map_stream


def packet(pts, *, key=False, hidden=False, duration=1, **content):
    """A packet as PyAV has it, and what an inspector reads in it."""
    said = {"pts": pts, "dts": pts, "pos": 7, "size": 9, "duration": duration}
    flags = {"is_keyframe": key, "is_discard": hidden, "is_corrupt": content.pop("corrupt", False)}
    return SimpleNamespace(**said, **flags), Content(**{"num_pictures": 1, **content})


def restart(pts, order=0, **more):
    return packet(pts, key=True, is_restart=True, order=order, **more)


def table_of(*packets):
    table = PacketTable()
    for number, (said, content) in enumerate(packets):
        said.dts, said.pos = number - 2, 100 * number
        table.add(said, content)
    return table


def mapped(*packets):
    return map_stream(table_of(*packets))


# Two groups of pictures; the second and third picture are shown before the one in the file.
GROUPS = (
    restart(10),
    packet(13, order=6),
    packet(11, order=2),
    packet(12, order=4, duration=None),
    restart(14),
    packet(16, order=4, duration=5),
    packet(15, order=2, duration=9),
)


def test_frames_are_in_the_order_in_which_they_are_shown():
    found = mapped(*GROUPS)

    assert found.unclear == ""
    assert found.pts.tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert found.restarts.tolist() == [10, 14]
    assert found.restart_places.tolist() == [0, 4]
    pts, dts, positions, sizes = (column.tolist() for column in found.packets)
    assert pts == [10, 13, 11, 12, 14, 16, 15]
    assert dts == [-2, -1, 0, 1, 2, 3, 4]
    assert positions == [0, 100, 200, 300, 400, 500, 600]
    assert sizes == [9] * 7
    assert (found.open_gop, found.num_hidden, found.last_duration) == (False, 0, 5)


def test_a_frame_has_its_time_and_the_restart_at_or_before_it():
    found = mapped(*GROUPS)

    assert [found.restart_before(k) for k in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    times = found.seconds(Fraction(1, 4))
    assert times.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


def test_the_last_frame_may_not_say_how_long_it_is_shown():
    assert mapped(restart(0), packet(1, order=2, duration=None)).last_duration == 0


def test_frames_that_an_edit_list_hides_are_decoded_but_not_shown():
    hidden = [restart(0, hidden=True), packet(1, order=2, hidden=True)]

    found = mapped(*hidden, packet(2, order=4), packet(3, order=6))

    assert found.unclear == ""
    assert (found.pts.tolist(), found.restarts.tolist()) == ([2, 3], [0])
    assert (found.num_hidden, found.restart_before(0)) == (2, 0)


def test_a_hidden_frame_may_have_the_time_of_another():
    first = restart(1)
    found = mapped(first, packet(2, order=2, hidden=True), packet(2, order=4))

    assert (found.unclear, found.pts.tolist()) == ("", [1, 2])


def test_a_stream_of_hidden_frames_has_no_start():
    assert mapped(restart(0, hidden=True)).unclear == "no clean start"


def test_keyframes_that_are_no_restart_are_an_open_group():
    found = mapped(restart(0), packet(1, order=2), packet(2, key=True, order=4))

    assert (found.restarts.tolist(), found.open_gop) == ([0], True)


def test_a_restart_that_the_container_does_not_mark_is_none_to_jump_to():
    found = mapped(restart(0), packet(1, is_restart=True, order=0))

    assert (found.unclear, found.restarts.tolist(), found.open_gop) == ("", [0], False)


def test_in_a_file_that_was_clear_before_every_keyframe_is_a_restart():
    found = map_of_known(table_of(packet(0, key=True), packet(8, key=True), packet(4, key=True)))

    assert (found.restarts.tolist(), found.restart_places.tolist()) == ([0, 4, 8], [0, 2, 1])
    assert not found.open_gop


def test_pictures_without_a_known_place_are_taken_in_the_order_of_their_times():
    found = mapped(restart(0, order=None), packet(2), packet(1))

    assert (found.unclear, found.pts.tolist()) == ("", [0, 1, 2])


def test_pictures_without_a_place_are_passed_over_among_those_that_have_one():
    assert mapped(restart(0), packet(2), packet(1, order=1), packet(3, order=2)).unclear == ""


def test_pictures_that_count_one_by_one_begin_anew_at_a_restart():
    counted = [restart(0, counts=True), packet(1, order=1), packet(2, order=2)]

    assert mapped(*counted, restart(3, counts=True), packet(4, order=1)).unclear == ""


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ([], "no clean start"),
        ([packet(0, is_restart=True, order=0)], "no clean start"),
        ([packet(0, key=True, order=0)], "no clean start"),
        ([packet(0, order=0), restart(1)], "no clean start"),
        ([restart(1), packet(0, order=-2)], "frames before the first keyframe"),
        ([restart(1), packet(0, hidden=True, order=-2)], "frames before the first keyframe"),
        ([restart(0), packet(1, order=2, corrupt=True)], "damaged packets"),
        ([restart(0), packet(1, order=2, num_pictures=-1)], "damaged packets"),
        ([restart(0), packet(None, order=2)], "missing or repeated timestamps"),
        ([restart(0), packet(0, order=2)], "missing or repeated timestamps"),
        ([restart(0), packet(1, order=2, num_pictures=0)], "not one picture each"),
        ([restart(0), packet(1, order=2, num_pictures=2)], "not one picture each"),
        ([restart(0), packet(1, order=2, num_pictures=300)], "not one picture each"),
        ([restart(0), packet(1, is_reordered=True)], "display order is not recorded"),
        ([restart(0), packet(1, order=2, follows=False)], "missing pictures"),
        ([restart(0), packet(1, order=4), packet(2, order=2)], "timestamps of another order"),
        ([restart(0), packet(1, order=2), packet(2, order=2)], "timestamps of another order"),
        ([restart(0), packet(2, order=2), restart(1)], "timestamps of another order"),
        ([restart(0, counts=True), packet(1, order=2)], "missing pictures"),
        ([restart(0, counts=True), packet(1, order=1), packet(2, order=3)], "missing pictures"),
    ],
)
def test_packets_that_prove_nothing_say_why(packets, why):
    found = mapped(*packets)

    assert why in found.unclear
    assert not len(found.pts)


def test_reading_that_broke_off_proves_nothing():
    table = table_of(*GROUPS)
    table.is_broken = True

    assert map_stream(table).unclear == "damaged packets"


def test_a_look_through_a_file_gives_every_packet_and_the_first_frame(tmp_path):
    path, seen = write_clip(tmp_path / "clip.mp4", 6, codec="mpeg4"), []

    with av.open(str(path)) as container:
        table, first = look_through(container, lambda data: seen.append(data) or Content(1))
        assert first is None
    with av.open(str(path)) as container:
        bare, first = look_through(container, None, first_frame=True)

    assert len(table) == len(bare) == 6
    assert not table.is_broken
    assert table.column("size").tolist() == [len(data) for data in seen]
    assert (table.pictures.tolist(), bare.pictures.tolist()) == ([1] * 6, [0] * 6)
    assert np.array_equal(bare.column("pts"), table.column("pts"))
    assert first.pts == table.column("pts")[0]


def test_a_look_through_a_file_that_breaks_off_keeps_what_it_read():
    def demux(_stream):
        yield from (SimpleNamespace(**vars(said)) for said, _ in GROUPS[:2])
        raise ffmpeg_errors()[0](1, "broken")

    stream = SimpleNamespace(disposition=0, codec_context=1)
    container = SimpleNamespace(demux=demux, streams=SimpleNamespace(video=[stream]))

    table, _ = look_through(container, None)

    assert (len(table), table.is_broken) == (2, True)

"""What goes on, over the loopback: it stalls, breaks off, changes its size, comes too fast; and a
file that grows."""

import contextlib
import io
import itertools
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from coded_videos import write_clip

import octvideo
from octvideo.data import iter_frames
from octvideo.data.reading import DecodeError
from octvideo.data.video import live as live_module
from octvideo.data.video.live import (
    LiveFrames,
    _Clock,
    _FileClock,
    _Growing,
    _opened_as,
    grown_frames,
    is_live,
)
from octvideo.data.video.video import Frames
from octvideo.errors import ConfigError
from octvideo.recognizer import LiveOptions

FOLLOWED = {"source": "a.ts", "live": LiveOptions(follow=True)}
Script = Callable[[socket.socket, bytes], None]
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


def _encoded(count: int, size: tuple[int, int] = (48, 64), first: int = 0, pid: int = 256) -> bytes:
    """MPEG-TS of gray pictures, 25 a second, number k of brightness 8 * k."""
    buffer = io.BytesIO()
    options = {"mpegts_start_pid": str(pid), "mpegts_pmt_start_pid": str(pid + 3840)}
    with av.open(buffer, "w", format="mpegts", options=options) as container:
        stream = container.add_stream("mpeg2video", rate=25)
        (stream.height, stream.width), stream.pix_fmt, stream.gop_size = size, "yuv420p", 5
        for k in range(first, first + count):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 8 * k % 256, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


class Server:
    """Answers the n-th connection by the n-th script, and refuses the others."""

    def __init__(self, *scripts: Script) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._scripts = scripts
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(20)
                request = connection.recv(4096)
                with contextlib.suppress(OSError):
                    script(connection, request)
        self._listener.close()


def _with_sound(pictures: int, seconds: float) -> bytes:
    """MPEG-TS whose sound goes on behind its pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream, sound = (
            container.add_stream("mpeg2video", rate=25),
            container.add_stream("mp2", 16000),
        )
        (stream.height, stream.width), stream.pix_fmt = (48, 64), "yuv420p"
        for k in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for k in range(round(seconds * 25)):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), "s16", "mono")
            heard.sample_rate, heard.pts = 16000, 640 * k
            container.mux(sound.encode(heard))
        container.mux(sound.encode())
    return buffer.getvalue()


def _sends_slowly(content: bytes, seconds: float) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        at_once = len(content) // 188 // 4 * 188  # enough for FFmpeg to open it
        connection.sendall(HEAD + content[:at_once])
        for k in range(at_once, len(content), 188):
            connection.sendall(content[k : k + 188])
            time.sleep(188 * seconds / len(content))

    return script


def _sends(content: bytes, then_seconds: float = 0.0) -> Script:
    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(HEAD + content)
        if then_seconds:
            connection.settimeout(then_seconds)
            connection.recv(1)  # a stall, until the other side has had enough

    return script


def _as_is(frame: Frames) -> Frames:
    return frame


def _read(source: LiveFrames) -> tuple[list, str]:
    """All frames until it is given up, and why that was."""
    frames = []
    with source, pytest.raises(DecodeError) as given_up:
        frames.extend(source)
    return frames, given_up.value.cause


@pytest.fixture
def live() -> Iterator[Callable[..., LiveFrames]]:
    def make(address: str, **options) -> LiveFrames:
        options = {"prepare": _as_is, "max_waiting": 1000, "say": said.append} | options
        return LiveFrames(address, give_up_seconds=1.0, **{"timeout_seconds": 2} | options)

    said: list[str] = []
    return make


def test_a_stream_that_breaks_stalls_and_changes_its_size_is_read_on(live):
    said: list[str] = []
    server = Server(
        _sends(_encoded(20)),
        lambda connection, _: connection.sendall(b"HTTP/1.0 503 busy\r\n\r\n"),
        _sends(_encoded(20), then_seconds=15),
        _sends(_encoded(20, size=(64, 48))),
    )

    frames, cause = _read(live(f"http://127.0.0.1:{server.port}/", say=said.append))

    begins = [k for k, frame in enumerate(frames) if frame.begins]
    assert len(begins) == 3
    assert begins[0] == 0
    assert {frames[k].image.shape for k in begins} == {(48, 64, 3), (64, 48, 3)}
    assert all(a.seconds < b.seconds for a, b in itertools.pairwise(frames))
    inside = np.diff([frame.seconds for frame in frames[: begins[1]]])
    np.testing.assert_allclose(inside, 1 / 25, atol=1e-3)
    assert len(said) >= 4
    assert all(line.startswith("http://127.0.0.1") for line in said)
    assert "no frame for" in cause


def test_frames_that_nobody_has_time_for_are_dropped_oldest_first_and_counted(live):
    server = Server(_sends(_encoded(40), then_seconds=15))
    seen: list[int] = []

    def note(frame: Frames) -> Frames:
        seen.append(int(frame.mean()))
        return frame

    source = live(f"http://127.0.0.1:{server.port}/", prepare=note, max_waiting=5)
    with source:
        while len(seen) < 30:
            time.sleep(0.01)
        time.sleep(0.2)
        frames = iter(source)
        first = [next(frames) for _ in range(5)]

        assert first[0].begins
        assert source.dropped >= 25
        assert source.dropped + 5 <= len(seen)
        assert [int(frame.image.mean()) for frame in first] == seen[-5:]


def test_a_damaged_packet_does_not_end_a_stream(live):
    content = bytearray(_encoded(40))
    packets = len(content) // 188
    for k in range(packets // 2, packets // 2 + 3):
        content[188 * k + 20 : 188 * k + 180] = bytes(160)
    server = Server(_sends(bytes(content)))

    frames, _ = _read(live(f"http://127.0.0.1:{server.port}/"))

    assert len(frames) > 25


def _impatient(
    server: Server, said: list[str], give_up_seconds: float | None, timeout_seconds: float = 1.0
) -> LiveFrames:
    return LiveFrames(
        f"http://127.0.0.1:{server.port}/",
        prepare=_as_is,
        max_waiting=1000,
        timeout_seconds=timeout_seconds,
        give_up_seconds=give_up_seconds,
        say=said.append,
    )


def test_a_connection_whose_sound_goes_on_without_pictures_is_opened_again():
    server = Server(_sends_slowly(_with_sound(10, 8), 8), _sends(_encoded(20)))
    said: list[str] = []

    frames, _ = _read(_impatient(server, said, give_up_seconds=2.5))

    assert [frame.begins for frame in frames].count(True) == 2
    assert any("data arrives, but no picture for 1 s" in line for line in said)


def test_a_stream_is_left_at_once_while_only_its_sound_arrives():
    server = Server(_sends_slowly(_with_sound(10, 8), 8))
    said: list[str] = []

    with _impatient(server, said, give_up_seconds=None) as source:
        next(iter(source))
        before, begun = len(said), time.monotonic()

    assert time.monotonic() - begun < 0.9
    assert not source._thread.is_alive()
    assert len(said) == before


def test_an_interrupted_reader_does_not_wait_for_a_silent_source():
    server = Server(_sends(_encoded(20), then_seconds=15))
    source = _impatient(server, [], None, timeout_seconds=4.0)
    next(iter(source.__enter__()))
    begun = time.monotonic()

    source.__exit__(KeyboardInterrupt)

    assert time.monotonic() - begun < 2.5


@contextlib.contextmanager
def _datagrams(*contents: bytes) -> Iterator[int]:
    """The port to which the first content is sent, once where there are others; then they."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    over = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for content in itertools.chain(contents, itertools.repeat(contents[-1])):
                for k in range(0, len(content), 1316):
                    if over.is_set():
                        return
                    sender.sendto(content[k : k + 1316], ("127.0.0.1", port))
                    time.sleep(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield port
    finally:
        over.set()
        thread.join()


def test_datagrams_are_read_as_they_come(live):
    with _datagrams(_encoded(100)) as port, live(f"udp://127.0.0.1:{port}") as source:
        frames = iter(source)
        assert next(frames).image.shape == (48, 64, 3)
        assert next(frames).seconds > 0


def test_a_sender_that_starts_again_with_other_streams_is_read_on():
    first, other = _encoded(25), _encoded(25, size=(64, 48), pid=512)
    said: list[str] = []
    with _datagrams(*[first] * 40, other) as port:
        address = f"udp://127.0.0.1:{port}"
        options = {"prepare": _as_is, "max_waiting": 1000, "timeout_seconds": 0.7}
        with LiveFrames(address, say=said.append, **options) as source:
            frames = iter(source)
            before = next(frames)
            after = next(frame for frame in frames if frame.image.shape == (64, 48, 3))

            assert before.image.shape == (48, 64, 3)
            assert (after.begins, after.seconds > before.seconds) == (True, True)
            assert any("its streams are not those that it had" in line for line in said)


def test_a_port_whose_datagrams_another_program_reads_is_not_taken_from_it(live):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))

        _, cause = _read(live(f"udp://127.0.0.1:{other.getsockname()[1]}"))

    assert "Address already in use" in cause


def _plays(content: bytes) -> Script:
    """MPEG-TS in RTP inside the connection of RTSP; a client that asks for datagrams has to ask
    again."""
    description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
    transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"

    def script(connection: socket.socket, request: bytes) -> None:
        while request:
            method, number = request.split()[0], re.search(rb"CSeq: (\d+)", request)[1].decode()
            head, body, status = "", "", "200 OK"
            if method == b"DESCRIBE":
                head, body = "Content-Type: application/sdp\r\n", description
            elif method == b"SETUP":
                head = transport
                status = "200 OK" if b"TCP" in request else "461 Unsupported transport"
            head += f"CSeq: {number}\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"RTSP/1.0 {status}\r\n{head}\r\n{body}".encode())
            if method == b"PLAY":
                break
            request = connection.recv(4096)
        for k in range(0, len(content), 1316):
            packet = struct.pack(">BBHII", 0x80, 33, k // 1316, k, 7) + content[k : k + 1316]
            connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
        time.sleep(0.3)

    return script


def test_a_camera_that_speaks_rtsp_is_played_again_after_a_break(live):
    server = Server(_plays(_encoded(30)), _plays(_encoded(30, size=(64, 48))))

    frames, _ = _read(live(f"rtsp://127.0.0.1:{server.port}/camera"))

    assert len(frames) > 40
    assert [frame.begins for frame in frames].count(True) == 2
    assert frames[-1].image.shape == (64, 48, 3)


@pytest.mark.parametrize(
    "content",
    [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"],
)
def test_an_address_opens_nothing_that_its_answer_names(live, content):
    server = Server(*[_sends(content)] * 5)

    said: list[str] = []
    frames, cause = _read(live(f"http://127.0.0.1:{server.port}/list.m3u8", say=said.append))

    assert frames == []
    assert said
    assert "passwd" not in " ".join([*said, cause])


def _sends_parts(count: int, seconds_apart: float) -> Script:
    """The answer of many a camera: pictures, one after the other, without a time."""
    with av.open(io.BytesIO(), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=25)
        (stream.height, stream.width), stream.pix_fmt = (48, 64), "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), "rgb24")
        content = b"".join(bytes(packet) for packet in stream.encode(frame))
    head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=part\r\n\r\n"
    part = b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content)

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        for _ in range(count):
            connection.sendall(part + content + b"\r\n")
            time.sleep(seconds_apart)

    return script


def test_pictures_without_timestamps_have_the_time_of_their_arrival(live):
    server = Server(_sends_parts(14, 0.2))

    frames, _ = _read(live(f"http://127.0.0.1:{server.port}/camera"))

    assert len(frames) >= 10
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[9].seconds - frames[4].seconds == pytest.approx(1.0, abs=0.4)


def test_the_scheme_of_an_address_may_be_in_capitals(live):
    server = Server(_sends(_encoded(20)))

    frames, _ = _read(live(f"HTTP://127.0.0.1:{server.port}/"))

    assert frames


@pytest.mark.parametrize("address", ["rtmp://host/live", "rtsps://host/stream"])
def test_a_followed_address_of_another_scheme_is_refused_with_the_known_ones(address):
    with pytest.raises(DecodeError, match="live are rtsp://, http://"):
        next(grown_frames(address, _as_is, 0.1))


def test_nobody_there_is_said_with_the_address(live):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    _, cause = _read(live(f"rtsp://127.0.0.1:{port}/stream"))

    assert "refused" in cause


@pytest.mark.parametrize("address", ["file:///etc/passwd", "concat:a|b", "ftp://host/a", "x.mp4"])
def test_other_addresses_are_not_live(address):
    assert not is_live(address)
    with pytest.raises(DecodeError, match="rtsp://"):
        LiveFrames(address, prepare=_as_is, max_waiting=1)


@pytest.mark.parametrize("address", [0, "0", "/dev/video2", "rtsp://a", "HTTPS://a", "udp://b"])
def test_cameras_and_addresses_are_live(address):
    assert is_live(address)


@pytest.mark.parametrize("address", ["/dev/video2", "2", "02"])
def test_a_camera_is_opened_as_its_device(address):
    assert _opened_as(address) == ("/dev/video2", "camera")


def test_a_mistake_in_what_is_done_with_frames_is_raised_at_once(live):
    def fail(_: Frames) -> Frames:
        raise ZeroDivisionError

    server = Server(_sends(_encoded(20)))
    begun = time.monotonic()

    with (
        live(f"http://127.0.0.1:{server.port}/", prepare=fail, timeout_seconds=30) as source,
        pytest.raises(ZeroDivisionError),
    ):
        next(iter(source))

    assert time.monotonic() - begun < 15


def test_stamps_that_start_again_or_leap_go_on():
    clock = _Clock(10.0)

    seconds = [clock.seconds(stamp) for stamp in (90.0, 90.04, 90.08, 3.0, 3.04, 7000.0, 7000.04)]

    times = [time for time, _ in seconds]
    assert times[0] == pytest.approx(0, abs=0.5)
    assert times == sorted(set(times))
    assert times[-1] < 5


def _stamped(path: Path, seconds: list[float]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        (stream.height, stream.width), stream.pix_fmt = (48, 64), "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp in seconds:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = round(stamp * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_followed_file_keeps_its_own_seconds_across_a_pause(tmp_path):
    stamps = [0, 0.1, 0.2, 40.0, 40.1]

    frames = list(grown_frames(_stamped(tmp_path / "a.mkv", stamps), _as_is, 0.1))

    assert [frame.seconds for frame in frames] == pytest.approx(stamps)
    assert [frame.begins for frame in frames] == [True, False, False, True, False]


@pytest.mark.parametrize(("timeout", "breaks"), [(30, [0]), (0.5, [0, 1, 2])])
def test_pictures_within_the_time_out_are_no_break_in_a_file(
    tmp_path, monkeypatch, timeout, breaks
):
    monkeypatch.setattr(live_module, "_Growing", lambda file, idle: file)  # does not wait

    frames = list(grown_frames(_stamped(tmp_path / "a.mkv", [0, 12, 24]), _as_is, timeout))

    assert [round(frame.seconds) for frame in frames] == [0, 12, 24]
    assert [k for k, frame in enumerate(frames) if frame.begins] == breaks


def test_pictures_within_the_time_out_are_no_break_at_an_address(live, tmp_path):
    content = _stamped(tmp_path / "a.mkv", [0, 12, 24]).read_bytes()
    server = Server(_sends(content))

    frames, _ = _read(live(f"http://127.0.0.1:{server.port}/", timeout_seconds=30))

    assert np.diff([frame.seconds for frame in frames]) == pytest.approx([12, 12], abs=1e-2)
    assert [frame.begins for frame in frames] == [True, False, False]


@pytest.mark.parametrize(
    ("stamps", "seconds", "breaks"),
    [
        ([5, 19, 33], [0, 14, 28], [0, 1, 2]),
        ([7, 36.9, 36.9, 37.0], [0, 29.9, 29.901, 30.0], [0, 1]),
        ([7, 8, 7.5, 8.1], [0, 1, 1.001, 1.1], [0]),
        ([7, 12, 1, 1.1], [0, 5, 5.001, 5.101], [0, 2]),
        ([7, 7.1, None, 7.2], [0, 0.1, 0.101, 0.2], [0]),
    ],
    ids=["pauses", "repeated", "out of order", "starting again", "missing"],
)
def test_a_file_has_its_timestamps_for_a_clock(stamps, seconds, breaks):
    clock = _FileClock(10.0)

    found = [clock.seconds(stamp) for stamp in stamps]

    assert [at for at, _ in found] == pytest.approx(seconds, abs=1e-4)
    assert [k for k, (_, begins) in enumerate(found) if begins] == breaks


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("turned.mkv", {"rotation": 90}),
        ("turned.mp4", {"rotation": 180, "container_options": {"movflags": "frag_keyframe"}}),
        ("cropped.mkv", {"options": {"x264-params": "crop-rect=10,6,2,2"}}),
    ],
)
def test_a_followed_file_has_the_pictures_that_it_has_when_it_is_finished(tmp_path, name, form):
    path = write_clip(tmp_path / name, 4, **form)

    frames = list(grown_frames(path, _as_is, 0.1))

    np.testing.assert_array_equal([frame.image for frame in frames], list(iter_frames(path)))


def test_pictures_of_an_address_are_turned_as_it_says(live, tmp_path):
    path = write_clip(tmp_path / "phone.mkv", 4, rotation=90, options={"bf": "0"})
    server = Server(_sends(path.read_bytes()))

    frames, _ = _read(live(f"http://127.0.0.1:{server.port}/"))

    np.testing.assert_array_equal([frame.image for frame in frames], list(iter_frames(path)))


@pytest.fixture(scope="module")
def recognizer(tiny_checkpoint: Path) -> octvideo.recognizer.Recognizer:
    return octvideo.load(tiny_checkpoint, device="cpu")


def test_a_stream_is_named_window_by_window_across_its_breaks(recognizer, caplog):
    server = Server(_sends(_encoded(30)), _sends(_encoded(30, size=(64, 48))))
    windows = []

    with pytest.raises(DecodeError, match="no frame for"):
        windows.extend(
            recognizer.stream(
                f"http://127.0.0.1:{server.port}/",
                window_seconds=0.4,
                stride_seconds=0.2,
                live=LiveOptions(give_up_seconds=1.0, timeout_seconds=2.0),
            )
        )

    assert [window.begins for window in windows].count(True) == 2
    assert len(windows) >= 6
    for window in windows:
        assert window.end - window.start == pytest.approx(0.4)
        assert window.scores.sum() == pytest.approx(1, abs=1e-5)
    assert "connecting again" in caplog.text


def test_a_file_is_followed_as_it_grows(recognizer, tmp_path):
    content, path = _encoded(50), tmp_path / "growing.ts"
    half = len(content) // 2 // 188 * 188 + 40  # in the middle of a packet
    path.write_bytes(content[:half])

    def grow() -> None:
        time.sleep(0.3)
        with path.open("ab") as file:
            file.write(content[half:])

    thread = threading.Thread(target=grow)
    thread.start()
    windows = list(
        recognizer.stream(
            path,
            window_seconds=0.4,
            stride_seconds=0.4,
            live=LiveOptions(follow=True, timeout_seconds=3.0),
        )
    )
    thread.join()

    assert [round(window.start, 2) for window in windows] == [0.0, 0.4, 0.8, 1.2]


def test_a_file_that_no_longer_grows_is_waited_for_once(monkeypatch):
    """FFmpeg asks for more several times, and each time took the whole time-out."""
    growing, slept = _Growing(io.BytesIO(b"ended"), 0.01), []
    monkeypatch.setattr(time, "sleep", slept.append)

    assert (growing.read(9), growing.read(9)) == (b"ended", b"")

    waited = len(slept)
    assert growing.read(9) == b""
    assert len(slept) == waited > 0


def test_a_file_that_needs_its_end_cannot_be_followed(recognizer, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\xff\xffmdat")

    with pytest.raises(DecodeError, match="MPEG-TS or Matroska"):
        list(
            recognizer.stream(
                tmp_path / "a.mp4", live=LiveOptions(follow=True, timeout_seconds=0.2)
            )
        )


def test_a_followed_file_of_pictures_too_narrow_to_resize_is_refused_by_name(recognizer, tmp_path):
    (tmp_path / "line.ts").write_bytes(_encoded(30, size=(16, 320)))

    with pytest.raises(DecodeError, match=r"line\.ts: 320 x 16 pixels"):
        next(
            recognizer.stream(
                tmp_path / "line.ts", live=LiveOptions(follow=True, timeout_seconds=1.0)
            )
        )


def test_frames_are_named_before_the_last_one_has_come(recognizer):
    given = 0

    def frames() -> Iterator[Frames]:
        nonlocal given
        for k in range(100):
            given = k + 1
            yield np.full((40, 48, 3), k, np.uint8)

    windows = recognizer.stream(frames(), window_seconds=1, stride_seconds=1, fps=10)

    assert next(windows).end == 1
    assert given == 10
    assert next(windows).end == 2
    assert given == 20


def test_a_stream_of_a_file_is_its_timeline(recognizer, tmp_path):
    (tmp_path / "a.ts").write_bytes(_encoded(40))

    windows = list(recognizer.stream(tmp_path / "a.ts", window_seconds=0.5, stride_seconds=0.3))
    timeline = recognizer.timeline(tmp_path / "a.ts", window_seconds=0.5, stride_seconds=0.3)

    assert [window.start for window in windows] == timeline.starts.tolist()
    assert [window.end for window in windows] == timeline.ends.tolist()
    np.testing.assert_allclose([w.scores for w in windows], timeline.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (["a.mp4", "b.mp4"], LiveOptions()),
        (np.zeros((4, 8, 8, 3), np.uint8), LiveOptions(follow=True)),
    ],
)
def test_what_cannot_be_streamed_is_refused_at_once(recognizer, source, options):
    with pytest.raises(ConfigError):
        recognizer.stream(source, live=options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (0, LiveOptions(follow=True), "follow: without effect beside 0"),
        ("a.ts", LiveOptions(give_up_seconds=3), "give_up_seconds: without effect beside a video"),
        ("a.ts", LiveOptions(follow=True, give_up_seconds=3), "give_up_seconds: without effect"),
        ("a.ts", LiveOptions(follow=True, max_waiting=3), "max_waiting: without effect"),
    ],
)
def test_live_options_without_effect_are_refused_at_once(recognizer, source, options, message):
    with pytest.raises(ConfigError, match=message):
        recognizer.stream(source, live=options)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_out_is_positive_and_finite(seconds):
    with pytest.raises(ConfigError, match="time-out"):
        LiveOptions(timeout_seconds=seconds)


@pytest.mark.parametrize("live", [{"source": "udp://127.0.0.1:9"}, {"source": 0}, FOLLOWED])
def test_a_rate_beside_a_source_that_has_its_own_is_refused_at_once(recognizer, live):
    with pytest.raises(ConfigError, match="leave fps out"):
        recognizer.stream(**live, fps=30)


def test_the_command_line_names_what_goes_on(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "a.ts").write_bytes(_encoded(50))
    command = ["predict", "--checkpoint", str(tiny_checkpoint), "--live"]
    server = Server(_sends(_encoded(40)))
    command += [f"http://127.0.0.1:{server.port}/", "--window-seconds", "0.4"]
    command += ["--stride-seconds", "0.4", "--give-up-seconds", "1", "--json"]

    from octvideo.cli import main

    with pytest.raises(SystemExit):
        main(command)

    out, err = capsys.readouterr()
    assert out.count('"predictions"') == 3
    assert "no frame for" in err.splitlines()[-1]


def test_the_command_line_says_how_long_a_source_may_be_silent(tiny_checkpoint, caplog):
    server = Server(_sends(_encoded(20), then_seconds=15))
    command = ["predict", "--checkpoint", str(tiny_checkpoint), "--live"]
    command += [f"http://127.0.0.1:{server.port}/", "--timeout-seconds", "0.7"]

    from octvideo.cli import main

    with pytest.raises(SystemExit):
        main([*command, "--give-up-seconds", "1"])

    said = "nothing arrived for 0.7 s (a slower source needs longer timeout_seconds)"
    assert said in caplog.text

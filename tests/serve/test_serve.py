"""The server: right answers, limits that hold, hostile requests that cost nobody else anything."""

import json
import os
import re
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_input import PREPROCESSING

from octvideo.cli.main import main
from octvideo.data.clips.views import view_batches
from octvideo.data.video.encode import write_video
from octvideo.download import hash_of
from octvideo.errors import ConfigError
from octvideo.serve.limits import Limits
from octvideo.serve.service import Service


@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_an_answer_is_what_the_recognizer_says(client, recognizer, video, views):
    answer = client.post(video.read_bytes(), f"?views={views}&top_k=3")

    assert answer.status == 200
    expected = recognizer.predict(video, views=views, top_k=3)
    assert [p["name"] for p in answer.content["predictions"]] == [p.name for p in expected]
    assert [p["probability"] for p in answer.content["predictions"]] == pytest.approx(
        [p.probability for p in expected], abs=1e-5
    )
    assert set(answer.content["seconds"]) == {"receive", "decode", "score"}


def test_health_and_classes_are_told(client):
    assert client.ask("GET", "/health").content["status"] == "ok"
    assert client.ask("GET", "/classes").content == list("abcdef")


def test_an_answer_and_the_facts_of_the_model_name_the_file_that_answers(
    client, video, tiny_checkpoint
):
    sha256 = hash_of(tiny_checkpoint)

    told = client.ask("GET", "/model").content

    assert client.post(video.read_bytes()).content["checkpoint_sha256"] == sha256
    assert (told["checkpoint_sha256"], told["network"], told["alpha"]) == (sha256, "i3d_r26", 0.25)
    assert (told["num_classes"], told["head_act"], told["multi_label"]) == (6, "softmax", False)
    assert told["preprocessing"] == PREPROCESSING


def test_metrics_count_answers_by_status(client, video):
    client.post(video.read_bytes())
    client.post(b"no video")
    refused = _count_of(client, 400)
    client.post(b"x", "?top_k=many")

    text = client.ask("GET", "/metrics").content

    for line in text.splitlines():
        assert line.startswith(("# HELP octvideo_", "# TYPE octvideo_", "octvideo_"))
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert int(counts['octvideo_requests_total{status="200"}']) >= 1
    assert int(counts['octvideo_requests_total{status="422"}']) >= 1
    assert _count_of(client, 400) == refused + 1
    assert (
        counts['octvideo_request_seconds_bucket{le="+Inf"}']
        == counts["octvideo_request_seconds_count"]
    )


def _count_of(client, status):
    """The answers with this status so far."""
    name = f'octvideo_requests_total{{status="{status}"}} '
    lines = client.ask("GET", "/metrics").content.splitlines()
    return sum(int(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (b"", "", 400, "empty"),
        (b"no video at all", "", 422, "cannot be read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "", 422, "cannot be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "", 422, "cannot be read"),
        (bytes(200_001), "", 413, "at most 200000"),
        (b"x", "?views=3x9", 400, "crops"),
        (b"x", "?views=10x3", 400, "at most 6"),
        (b"x", "?views=" + "9" * 500 + "x1", 400, "clips x crops"),
        (b"x", "?views=many", 400, "views"),
        (b"x", "?top_k=0", 400, "top_k"),
        (b"x", "?top_k=many", 400, "top_k is 'many'"),
        (b"x", "?top_k=2.5", 400, "top_k is '2.5'"),
        (b"x", "?top_k=", 400, "top_k is ''"),
        (b"x", "?top_k=" + "9" * 5000, 400, "top_k is '9999"),
    ],
)
def test_a_request_that_cannot_be_served_says_why(client, body, query, status, words):
    answer = client.post(body, query)

    assert answer.status == status
    assert words in answer.content["detail"]
    assert "/tmp" not in json.dumps(answer.content)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
        ({"Content-Encoding": "gzip"}, 415, "the body is gzip"),
        ({"Content-Encoding": "identity"}, 422, "cannot be read"),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, 400, "JSON must be an object"),
    ],
)
def test_a_body_that_is_no_video_itself_is_told_by_its_headers(client, headers, status, words):
    answer = client.ask("POST", "/predict", b"x", **headers)

    assert answer.status == status
    assert words in answer.content["detail"]


def test_a_video_that_is_sent_as_json_is_refused_as_json(client):
    answer = client.ask("POST", "/predict", bytes(20_000), **{"Content-Type": "application/json"})

    assert (answer.status, "20000 bytes of JSON" in answer.content["detail"]) == (413, True)


def test_what_is_cut_off_is_refused_and_leaves_no_file(client, video):
    content = video.read_bytes()

    statuses = {client.post(content[: len(content) * k // 7]).status for k in range(1, 7)}

    assert statuses <= {200, 422}
    assert client.post(content).status == 200
    assert not list(Path(client.service._folder.name).iterdir())


def test_a_long_video_and_a_large_picture_are_refused_before_they_are_decoded(client, tmp_path):
    small = np.zeros((2, 32, 32, 3), np.uint8)
    write_video(tmp_path / "long.mp4", np.repeat(small[:1], 60, 0), fps=10)
    write_video(tmp_path / "large.mp4", np.zeros((2, 512, 1024, 3), np.uint8), fps=10)

    assert "lasts 6 s" in client.post((tmp_path / "long.mp4").read_bytes()).content["detail"]
    assert "pixels" in client.post((tmp_path / "large.mp4").read_bytes()).content["detail"]


def test_a_body_of_unknown_length_is_cut_at_the_limit(client):
    answer = client.ask("POST", "/predict", iter([bytes(50_000)] * 10))

    assert answer.status == 413


def test_a_client_that_sends_nothing_more_is_let_go(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")

        assert b" 408 " in connection.recv(4096)


def test_a_client_that_goes_leaves_no_file(client, video):
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        time.sleep(0.2)

    assert client.post(video.read_bytes()).status == 200
    assert not list(Path(client.service._folder.name).iterdir())
    assert client.service.inside == 0


def test_requests_at_one_time_share_passes_and_keep_their_answers(client, recognizer, tmp_path):
    videos = []
    for k in range(6):
        frames = np.random.default_rng(k).integers(0, 255, (10 + k, 40, 48, 3), np.uint8)
        write_video(tmp_path / f"{k}.mp4", frames, fps=10)
        videos.append(tmp_path / f"{k}.mp4")

    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda v: client.post(v.read_bytes(), "?views=2x1&top_k=6"), videos)
        )

    for video, answer in zip(videos, answers, strict=True):
        expected = {p.name: p.probability for p in recognizer.predict(video, views="2x1", top_k=6)}
        found = {p["name"]: p["probability"] for p in answer.content["predictions"]}
        assert found == pytest.approx(expected, abs=1e-5)


def test_what_waits_for_the_network_is_not_decoded_yet(serve, recognizer, video, monkeypatch):
    """One worker, passes of one view: held are the pass that runs, the next one, and what the worker
    has decoded meanwhile."""
    with serve(recognizer, workers=1, batch=1) as client:
        decode, compute = client.service._decoders.decode, client.service._scorer._compute
        count, held = SimpleNamespace(decoded=0, passes=0, seconds=0.0), []
        all_decoded = threading.Event()

        def counted_decode(*arguments):
            count.decoded += 1
            held.append(count.decoded - count.passes)
            if count.decoded == 8:
                all_decoded.set()
            begin = time.monotonic()
            video = decode(*arguments)
            count.seconds += time.monotonic() - begin
            return video

        def slow_compute(views):
            all_decoded.wait(0.5 if not count.passes else 0)
            scores = compute(views)
            count.passes += 1
            return scores

        monkeypatch.setattr(client.service._decoders, "decode", counted_decode)
        monkeypatch.setattr(client.service._scorer, "_compute", slow_compute)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.post, [video.read_bytes()] * 8))
        told = client.ask("GET", "/metrics").content

    assert [answer.status for answer in answers] == [200] * 8
    assert count.decoded == count.passes == 8
    (seconds,) = re.findall(r"^octvideo_decode_seconds_sum (\S+)", told, re.MULTILINE)
    assert float(seconds) < count.seconds + 1  # of eight, most of which waited for half a second
    assert max(held) <= 3


def test_what_no_request_waits_for_any_more_is_not_computed(serve, recognizer, video, monkeypatch):
    limits = Limits(request_seconds=0.5)
    with serve(recognizer, limits=limits, workers=1, batch=1) as client:
        leave, computed = threading.Event(), []

        def stuck_compute(views):
            computed.append(len(views))
            leave.wait(30)
            return np.zeros((len(views), 6), np.float32)

        monkeypatch.setattr(client.service._scorer, "_compute", stuck_compute)
        with ThreadPoolExecutor(5) as pool:
            late = list(pool.map(client.post, [video.read_bytes()] * 5))
        leave.set()
        client.service.limits = Limits()
        good = client.post(video.read_bytes())

    assert [answer.status for answer in late] == [504] * 5
    assert good.status == 200
    assert len(computed) <= 2  # the one that was being computed, and the good one


def test_a_full_server_says_so_at_once_and_recovers(serve, recognizer, video, monkeypatch):
    with serve(recognizer, limits=Limits(max_waiting=1)) as client:
        entered, leave = threading.Event(), threading.Event()
        decode = client.service._decoders.decode

        def slow(*arguments):
            entered.set()
            leave.wait(30)
            return decode(*arguments)

        monkeypatch.setattr(client.service._decoders, "decode", slow)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(client.post, video.read_bytes())
            entered.wait(30)
            second = client.post(video.read_bytes())
            leave.set()

            assert second.status == 503
            assert second.headers["retry-after"] == "1"
            assert first.result().status == 200
        assert client.post(video.read_bytes()).status == 200


def test_a_flood_is_refused_in_json_without_reading_on_for_all(serve, recognizer, monkeypatch):
    monkeypatch.setattr("octvideo.serve.app._DRAIN_SECONDS", 60)
    with ExitStack() as stack:
        client = stack.enter_context(serve(recognizer, limits=Limits(max_waiting=1)))
        client.service.inside = 1
        flood = [
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=30))
            for _ in range(5)
        ]
        for connection in flood:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        answered: list[socket.socket] = []
        while len(answered) < 2:  # of five; for three the server reads on
            answered, _, _ = select.select(flood, [], [], 30)
        answers = [connection.makefile("rb").read() for connection in answered]

    for answer in answers:
        head, content = answer.split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert "the server is busy" in json.loads(content)["detail"]


def test_connections_that_ask_nothing_keep_nobody_out(serve, recognizer):
    with serve(recognizer, limits=Limits(max_waiting=1)) as client, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port)))

        assert client.ask("GET", "/health").status == 200


def test_others_are_answered_while_the_views_of_a_video_are_cut(client, video, monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def slow(*arguments):
        entered.set()
        leave.wait(30)
        return view_batches(*arguments)

    monkeypatch.setattr("octvideo.serve.service.view_batches", slow)
    with ThreadPoolExecutor(2) as pool:
        cut = pool.submit(client.post, video.read_bytes())
        entered.wait(30)
        other = pool.submit(client.ask, "GET", "/health")
        try:
            assert other.result(10).status == 200
            assert not cut.done()
        finally:
            leave.set()
        assert cut.result().status == 200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_told_as_a_server_that_is_busy(client, video, monkeypatch):
    place = Path(client.service._folder.name) / "full"
    place.symlink_to("/dev/full")
    monkeypatch.setattr("octvideo.serve.service.uuid4", lambda: SimpleNamespace(hex=place.name))

    full = client.post(video.read_bytes())
    monkeypatch.undo()

    assert (full.status, full.headers["retry-after"]) == (503, "1")
    assert "cannot store the video (No space left on device)" in full.content["detail"]
    assert not place.is_symlink()
    assert client.post(video.read_bytes()).status == 200


def test_a_folder_that_the_system_removed_meanwhile_is_made_anew(serve, recognizer, video):
    with serve(recognizer) as client:
        Path(client.service._folder.name).rmdir()

        assert client.post(video.read_bytes()).status == 200
        folder = Path(client.service._folder.name)
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_a_video_that_the_system_removed_meanwhile_is_no_fault_of_the_client(
    client, video, monkeypatch
):
    service, decode = client.service, client.service._decoders.decode

    def decodes_what_is_gone(path, spec):
        shutil.rmtree(service._folder.name)
        return decode(path, spec)

    with monkeypatch.context() as patch:
        patch.setattr(service._decoders, "decode", decodes_what_is_gone)
        refused = client.post(video.read_bytes())

    assert (refused.status, refused.content["detail"]) == (
        503,
        "the server lost the video; try again later",
    )
    assert client.post(video.read_bytes()).status == 200


def test_a_folder_that_cannot_be_made_anew_is_told_as_a_full_disk(client, video, monkeypatch):
    Path(client.service._folder.name).rmdir()
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", "/nowhere")
        refused = client.post(video.read_bytes())

    assert refused.status == 503
    assert "cannot store the video (No such file" in refused.content["detail"]
    assert client.post(video.read_bytes()).status == 200


def test_a_bug_is_answered_in_json_too(client, video, monkeypatch):
    monkeypatch.setattr("octvideo.serve.service.top_predictions", lambda *_: 1 / 0)

    answer = client.post(video.read_bytes())

    assert answer.status == 500
    assert "the server failed (ZeroDivisionError)" in answer.content["detail"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/health", 503), ("GET", "/predict", 405), ("GET", "/nothing", 404)],
)
def test_every_refusal_has_a_detail(client, monkeypatch, method, target, status):
    monkeypatch.setattr(client.service, "stopping", True)

    answer = client.ask(method, target)

    assert (answer.status, type(answer.content["detail"])) == (status, str)
    assert "stopping" in answer.content.get("status", "") or "POST /predict" in str(answer.content)


def test_a_request_that_takes_too_long_is_answered_in_time(serve, recognizer, video, monkeypatch):
    with serve(recognizer, limits=Limits(request_seconds=0.5)) as client:
        leave = threading.Event()
        monkeypatch.setattr(client.service._decoders, "decode", lambda *_: leave.wait(30))

        answer = client.post(video.read_bytes())

        leave.set()
        assert answer.status == 504


def test_a_decoder_that_crashes_or_hangs_is_replaced(serve, recognizer, video, monkeypatch):
    """Stand-ins for what native code may do with a hostile file, in the worker that reads it."""
    monkeypatch.setattr("octvideo.serve.decoders.decode_upload", _hostile)
    with serve(recognizer, limits=Limits(decode_seconds=3)) as client:
        crashed = client.post(b"crash")
        hung = client.post(b"hang")
        good = client.post(video.read_bytes())

        assert (crashed.status, hung.status, good.status) == (422, 422, 200)
        assert "ended the process" in crashed.content["detail"]
        assert "within 3 seconds" in hung.content["detail"]
        assert "octvideo_decoders_replaced_total 2" in client.ask("GET", "/metrics").content


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(24, "Too many open files"), 503, "cannot decode videos now; try again later"),
        (ZeroDivisionError(), 500, "ZeroDivisionError"),
    ],
)
def test_a_server_that_could_start_no_decoder_for_a_while_decodes_again(
    client, video, monkeypatch, error, status, words
):
    def fails(*_):
        raise error

    pools = client.service._decoders._free
    pool = pools.get()
    os.kill(pool._workers[0]._process.pid, signal.SIGKILL)
    pools.put(pool)
    with monkeypatch.context() as patch:
        patch.setattr("octvideo.data.loading.pool._Worker.__init__", fails)
        refused = [client.post(video.read_bytes()) for _ in range(2)]

    assert [answer.status for answer in refused] == [status] * 2
    assert words in refused[-1].content["detail"]
    assert client.post(video.read_bytes()).status == 200


def _hostile(limits, path, spec):
    import torch

    from octvideo.data.clips.views import DecodedVideo
    from octvideo.data.reading import DecodeError, reading
    from octvideo.serve.decoders import decode_upload

    word = Path(path).read_bytes()[:5]
    try:
        with reading(path):
            if word == b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if word == b"hang":
                time.sleep(600)
    except DecodeError as error:
        return DecodedVideo(0, path, torch.empty(0), torch.empty(0), error.cause)
    return decode_upload(limits, path, spec)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"workers": 1, "batch": 0}])
def test_a_server_without_workers_is_refused(recognizer, wrong):
    with pytest.raises(ConfigError):
        Service(recognizer, **wrong)


@pytest.mark.parametrize(
    "limit", [{"max_bytes": 0}, {"receive_seconds": float("inf")}, {"max_views": float("nan")}]
)
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ConfigError, match="positive and finite"):
        Limits(**limit)


@pytest.mark.parametrize("megabytes", ["inf", "nan", "0", "-1", "1e305"])
def test_a_size_that_is_none_is_refused_before_the_network_is_read(megabytes, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--checkpoint", "none.pyth", "--max-megabytes", megabytes])

    assert "error: --max-megabytes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_server_answers_who_is_inside(
    tiny_checkpoint, repo, video, tmp_path, tmp_path_factory
):
    folder, said = tmp_path_factory.mktemp("t"), tmp_path / "log"  # sockets take short paths
    command = [sys.executable, "-m", "octvideo", "serve", "--checkpoint", str(tiny_checkpoint)]
    with (
        said.open("w") as log,
        subprocess.Popen(
            [*command, "--port", "0", "--workers", "1"],
            env=os.environ
            | {"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
            stderr=log,
        ) as process,
    ):
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", said.read_text())):
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
        port = int(found[1])
        content = video.read_bytes()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[:100])
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(content[100:])

            assert b" 200 " in connection.recv(65536).split(b"\r\n")[0]
        assert process.wait(60) == 0
    assert not list(folder.iterdir())
    assert "Finished server process" in said.read_text()


def test_an_upload_that_a_stopped_server_does_not_wait_for_is_refused(serve, recognizer):
    with serve(recognizer, stop_seconds=1) as client:
        connection = socket.create_connection(("127.0.0.1", client.port), timeout=60)
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        while not client.service.inside:
            time.sleep(0.01)
    with connection:
        answer = connection.recv(65536)

    assert b" 503 " in answer.split(b"\r\n")[0]
    assert b"send the video again" in answer


@pytest.mark.parametrize("port", ["taken", "70000"])
def test_a_port_that_is_taken_is_told_before_the_network_is_read(port, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1]) if port == "taken" else port
        with pytest.raises(SystemExit):
            main(["serve", "--checkpoint", "none.pyth", "--port", number])

    assert f"--port {number}: no server can listen there" in capsys.readouterr().err


def test_the_example_client_prints_the_answer(client, repo, video, monkeypatch, capsys):
    words = ["serve_client.py", str(video), "--server", f"http://127.0.0.1:{client.port}"]
    monkeypatch.setattr(sys, "argv", words)

    runpy.run_path(str(repo / "docs" / "examples" / "serve_client.py"), run_name="__main__")

    assert len(capsys.readouterr().out.splitlines()) == 5


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 19\r\n\r\nService Unavailable"
FOUND = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"predictions": []}'
PROXY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 13\r\n\r\n<p>no one</p>"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([BUSY, b"", FOUND[:-1], FOUND], ""),
        ([BUSY] * 5, "error 503: Service Unavailable"),
        ([PROXY], "error 502: <p>no one</p>"),
        ([b""] * 5, "gives no answer"),
    ],
)
def test_the_example_client_tries_again_where_it_helps(repo, monkeypatch, answers, said):
    ask = runpy.run_path(str(repo / "docs" / "examples" / "serve_client.py"))["ask"]
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_each, args=(listener, answers))
        thread.start()
        try:
            found = ask(f"http://127.0.0.1:{listener.getsockname()[1]}", b"video", "1x1", 5)
        except SystemExit as stopped:
            found = str(stopped)
        thread.join()

    assert said in found if said else found == {"predictions": []}


def _answer_each(listener, answers):
    for answer in answers:
        connection, _ = listener.accept()
        with connection:
            while not connection.recv(4096).endswith(b"video"):
                pass
            connection.sendall(answer)

"""Shards on an object store that speaks S3, on loopback."""

from importlib.util import find_spec

import pytest
import torch
from coded_videos import write_clip

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards.shard_list import class_names_of, open_shards
from octvideo.errors import DataError


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket of moto's server, for this process and those that it starts."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("no S3 server")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        patch.setenv("no_proxy", "127.0.0.1")
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def _batches(videos, num_workers):
    dataset = ClipDataset(videos, rule=ClipRule(4, 2), transform=ClipTransform(32, (40, 48)))
    loader = Loader(dataset, batch_size=2, num_workers=num_workers)
    try:
        return [batch.inputs for batch in loader.epoch(0)]
    finally:
        loader.close()


# botocore calls datetime.utcnow, and leaves its connections to the collector.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_shards_on_s3_are_written_and_give_the_samples_of_the_files(bucket, tmp_path):
    for i in range(4):
        write_clip(tmp_path / f"{i}.mp4", 10 + i)
    (tmp_path / "train.csv").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(4)))
    (tmp_path / "class_names.txt").write_text("clap\nwave\n")
    videos = read_list(tmp_path / "train.csv")

    write_shards(videos, f"{bucket}/train", name="train", max_bytes=20_000, num_workers=1)

    shards = open_shards(f"{bucket}/train")
    assert len(shards._shards) > 1
    assert class_names_of(f"{bucket}/train") == ["clap", "wave"]
    for num_workers in (0, 1):
        for ours, theirs in zip(_batches(shards, num_workers), _batches(videos, 0), strict=True):
            assert torch.equal(ours, theirs)
    with pytest.raises(DataError, match="there are no shards"):
        open_shards(f"{bucket}/nowhere")

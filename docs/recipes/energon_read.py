"""octvideo's shards as a data set of energon (pip install megatron-energon).

    energon prepare shards/train --non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset
    python energon_read.py shards/train

`prepare` looks through the tar files and adds its own indexes beside them, which octvideo passes
over. A sample of this recipe holds the bytes of a video, its label and its path in the list.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    WorkerConfig,
    basic_sample_keys,
    edataclass,
    get_loader,
    get_train_dataset,
    stateless,
)


@edataclass
class StoredVideo(Sample):
    """video: the bytes of the file."""

    video: bytes
    label: int
    path: str


@stateless
def cook(sample: dict[str, Any]) -> StoredVideo:
    about = json.loads(sample["json"])
    keys = basic_sample_keys(sample)
    return StoredVideo(**keys, video=sample["mp4"], label=about["label"], path=about["path"])


class Encoder(DefaultTaskEncoder):
    cookers = (Cooker(cook),)
    decoder = None  # the bytes as they are stored


def samples(folder: str) -> Iterable[Any]:
    """Batches of one video, in a process without workers."""
    dataset = get_train_dataset(
        folder,
        batch_size=1,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        task_encoder=Encoder(),
        repeat=False,
    )
    return get_loader(dataset)


if __name__ == "__main__":
    for batch in samples(sys.argv[1]):
        print(batch.path[0], int(batch.label[0]), len(batch.video[0]), "bytes")

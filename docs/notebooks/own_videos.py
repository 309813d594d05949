# %% [markdown]
# # From a folder of videos to a network
#
# A folder with a folder of clips per class is all that is needed. The clips here are made: objects
# that move to the left or to the right, so that a single frame tells nothing.

# %%
from pathlib import Path

import octvideo
from octvideo.data.prepare.demo import make_clip
from octvideo.data.video.encode import write_video

classes = {"move left": 0, "move right": 1}
for name, label in classes.items():
    folder = Path("my_videos") / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(12):
        write_video(folder / f"{seed:02d}.mp4", make_clip(label, seed=100 * label + seed))
print(sorted(path.name for path in Path("my_videos").iterdir()))

# %% [markdown]
# ## Train
#
# `octvideo.fit` makes the lists, checks the files, chooses the start, trains, and evaluates the
# test videos; called again, it resumes. On a command line this is `octvideo train my_videos`. The
# settings here make it a matter of seconds: a small network from scratch, small pictures, two
# epochs. On your videos leave them out.

# %%
run = octvideo.fit(
    "my_videos",
    model="i3d_r26",
    weights="none",
    epochs=2,
    views="1x1",
    DATA={
        "NUM_FRAMES": 4,
        "SAMPLING_RATE": 4,
        "TRAIN_CROP_SIZE": 32,
        "TEST_CROP_SIZE": 32,
        "TRAIN_JITTER_SCALES": [36, 40],
    },
    RESNET={"WIDTH_PER_GROUP": 16},
    TRAIN={"BATCH_SIZE": 4},
    DATA_LOADER={"NUM_WORKERS": 0},
)
print(f"top-1 {run.results['top1_acc']:.1f} % of {run.results['num_videos']} videos")
print(f"the report: {run.report}")

# %% [markdown]
# ## Name a video

# %%
video = "my_videos/move left/00.mp4"
for prediction in run.recognizer.predict(video, views="1x1"):
    print(f"{prediction.probability:.2f} {prediction.name}")

# %% [markdown]
# ## Features
#
# What the classifier sees, for a classifier or a search of your own:

# %%
print(run.recognizer.features(video).shape)

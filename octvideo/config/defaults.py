"""Every setting with its default. Names and defaults are PySlowFast's where it has the setting.

The type of a default is the type of the setting; `null` in a file means the default.
"""

from typing import Any, get_args

from octvideo.data.lists.video_list import FORMATS
from octvideo.data.sampling import RULES
from octvideo.data.video.decode import BACKENDS
from octvideo.deploy.precision import Precision
from octvideo.engine.evaluation.evaluate import ENSEMBLES
from octvideo.engine.training.losses import LOSSES
from octvideo.engine.training.optim import OPTIMIZERS, SCHEDULES
from octvideo.layers import WIDTH_RULES
from octvideo.layers.nonlocal_block import Instantiation
from octvideo.layers.octave import Downsample
from octvideo.models.image_options import STEM_POOLS, STEMS
from octvideo.models.network import HeadAct
from octvideo.models.video_options import BLOCKS

Tree = dict[str, Any]

DEFAULTS: Tree = {
    "TRAIN": {
        "ENABLE": True,
        "DATASET": "video",
        "BATCH_SIZE": 64,  # global: over all processes and accumulation steps
        "EVAL_PERIOD": 10,  # epochs
        "CHECKPOINT_PERIOD": 10,  # epochs
        "CHECKPOINT_MINUTES": 0.0,  # also in the middle of an epoch; 0: never
        "KEEP_CHECKPOINTS": 3,
        "SAFETENSORS": False,  # the best weights also as best.safetensors
        "AUTO_RESUME": True,
        # weights to start from, of any layout that octvideo.weights reads
        "CHECKPOINT_FILE_PATH": "",
        "CHECKPOINT_INFLATE": False,  # they are an image network's
        # texts to remove from the names in that file, wherever they stand
        "CHECKPOINT_CLEAR_NAME_PATTERN": [],
        "MIXED_PRECISION": False,
        "AMP_DTYPE": "bfloat16",
        "EMA_DECAY": 0.0,
        "COMPILE": False,
        "CHANNELS_LAST": True,
        "DETERMINISTIC": False,
        # steps in a row that mixed precision may skip for an infinite loss or gradient
        "MAX_SKIPPED": 20,
    },
    "TEST": {
        "ENABLE": True,
        "DATASET": "video",
        "BATCH_SIZE": 8,  # of images; videos are taken one at a time
        "CHECKPOINT_FILE_PATH": "",
        "NUM_ENSEMBLE_VIEWS": 10,
        "NUM_SPATIAL_CROPS": 3,
        "IMAGE_CROP_SIZES": [224, 320],  # center crops of the final test on images, each by itself
        "VIEW_CHUNK": 0,  # views of a video per forward pass; 0: chosen and stored
        "OPTIMIZE": False,  # fold and fuse the network for inference first
        # with OPTIMIZE, on a CPU: bf16, int8 (calibrated on training videos), auto
        "PRECISION": "fp32",
        "DIAGNOSE": False,  # also with frames shuffled, reversed and repeated: does time matter?
    },
    "DATA": {
        "PATH_TO_DATA_DIR": "",  # holds train.csv, val.csv, test.csv
        "PATH_PREFIX": "",  # put before every path of a list
        "PATH_LABEL_SEPARATOR": "",  # "": spaces, tabs or a comma
        "LIST_FORMAT": "video",  # shards: train/, val/ and test/ hold tar files (octvideo shard)
        "SHARD_CACHE_GB": 0.0,  # of remote shards, on a local disk of each machine
        "SHARD_CACHE_DIR": "",  # "": below OCTVIDEO_HOME
        # which pictures of a folder are the frames: img_{:05d}.jpg, rgb_*.png
        "FRAME_TEMPLATE": "",
        # in loader workers; torchcodec[:cuda] for what it reads exactly, PyAV for the rest
        "DECODER": "auto",
        "NUM_FRAMES": 8,
        "SAMPLING_RATE": 8,
        "SAMPLING_RULE": "pyslowfast",  # how NUM_FRAMES are spread over a clip
        "TARGET_FPS": 30.0,
        "MEAN": [0.45, 0.45, 0.45],
        "STD": [0.225, 0.225, 0.225],
        "TRAIN_JITTER_SCALES": [256, 320],
        # The crop's share of the area and its width / height. []: of videos the short side is
        # jittered instead, of images they are [0.08, 1.0] and [0.75, 1.3333].
        "TRAIN_JITTER_SCALES_RELATIVE": [],
        "TRAIN_JITTER_ASPECT_RELATIVE": [],
        "TRAIN_CROP_SIZE": 224,
        "TEST_CROP_SIZE": 256,
        # Of a test of videos; 0, as PySlowFast: the crop's, and TRAIN_JITTER_SCALES[0] of one crop.
        "TEST_SHORT_SIDE": 0,
        "RANDOM_FLIP": True,
        "PCA_NOISE": 0.0,  # on images: standard deviation along the principal components of color
        "COLOR_JITTER": 0.0,  # brightness, contrast and saturation change by up to this share
        "INV_UNIFORM_SAMPLE": False,  # jitter uniform in 1 / short side
        "REVERSE_INPUT_CHANNEL": False,  # before MEAN and STD are applied
        "MULTI_LABEL": False,
        "ENSEMBLE_METHOD": "sum",
        "MAX_BAD_RATIO": 0.05,  # of the training list, over all processes, before the run stops
    },
    "DATA_LOADER": {
        "NUM_WORKERS": 8,  # per process
        "PIN_MEMORY": True,
        "TIMEOUT": 120.0,  # seconds in which a file must give a frame, and a rank a sign of life
    },
    "MODEL": {
        "ARCH": "slowfast",  # of RESNET.DEPTH; on images the name of a network, as resnet50
        # PySlowFast's; ResNet_nopool: C2D keeps all frames; PTV...: pytorchvideo's test head
        "MODEL_NAME": "",
        "NUM_CLASSES": 400,  # 0: as many as class_names.txt beside the lists names
        "LOSS_FUNC": "cross_entropy",
        "CLASS_WEIGHTS": [],
        "DROPOUT_RATE": 0.5,
        "FC_INIT_STD": 0.01,
        "HEAD_ACT": "",  # of a test's scores; "": softmax, with DATA.MULTI_LABEL sigmoid
        "FROZEN_BN": False,  # batch norms keep their weights and statistics
        "FREEZE_STAGES": [],  # 1 is the stem, 2..5 are res2..res5
        "ACT_CHECKPOINT": False,
        # 3D convolutions as 2D ones; auto: on the devices that were measured
        "COMPUTE_IN_2D": "auto",
        "STEM_SPACE_TO_DEPTH": "auto",  # the strided stem as an unstrided one of 12 channels
        "OPTIONS": [],  # of the network, by its own names: ["growth_rate=24"]
    },
    "RESNET": {
        "DEPTH": 50,
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 64,
        "STRIDE_1X1": False,
        "ZERO_INIT_FINAL_BN": False,
        # blocks of res2..res5 with the family's temporal kernel; []: 3, 4, 6, 3
        "NUM_BLOCK_TEMP_KERNEL": [],
        "STEM_POOL_PADDING": 1,
        "STEM": "7x7",  # of image networks; 3x3 for pictures of 32 pixels
        "STEM_POOL": "max",  # of image networks
        "BLOCK": "post",
    },
    "OCTCONV": {
        "ALPHA": 0.0,  # share of the channels at half resolution; 0 is the vanilla network
        "STAGES": [],  # octave stages of 2..5; []: the family's own
        "WIDTH_RULE": "",  # "": the family's own
        "NONLOCAL": "high",
        "DOWNSAMPLE": "",  # "": strided where neither side has a low group, else pooled
        "MEMORY_SAVING": False,
        "FUSED": "auto",  # Triton kernels on a GPU; auto: where they were measured to be faster
        # of vanilla weights that are divided: the channels that lose least, not just the last
        "SMOOTHEST_LOW": True,
    },
    "NONLOCAL": {
        "LOCATION": [[[]], [[]], [[]], [[]]],  # block indices in res2..res5, per pathway
        "GROUP": [[1], [1], [1], [1]],
        "INSTANTIATION": "dot_product",
        "POOL": [[[1, 2, 2]], [[1, 2, 2]], [[1, 2, 2]], [[1, 2, 2]]],
    },
    "SLOWFAST": {
        "ALPHA": 8,  # frames of the fast pathway per frame of the slow one
        "BETA_INV": 8,
        "FUSION_CONV_CHANNEL_RATIO": 2,
        "FUSION_KERNEL_SZ": 5,
    },
    "BN": {
        # before validations and checkpoints; with TRAIN.EMA_DECAY those of the average
        "USE_PRECISE_STATS": False,
        "PRECISE_STATS_AT_START": False,  # before the first step; of frozen batch norms too
        "NUM_BATCHES_PRECISE": 200,
        "WEIGHT_DECAY": 0.0,
        "NORM_TYPE": "batchnorm",
    },
    "SOLVER": {
        "OPTIMIZING_METHOD": "sgd",
        "BASE_LR": 0.1,
        # the batch that BASE_LR is meant for: the rate scales with BATCH_SIZE; 0: it does not
        "BASE_BATCH_SIZE": 0,
        "LR_POLICY": "cosine",
        "COSINE_END_LR": 0.0,
        "STEPS": [],  # epochs, the first is 0
        "STEP_ITERS": [],  # in iterations, with MAX_ITER
        # factors of BASE_LR from each step on; files of PySlowFast have more of them than steps
        "LRS": [],
        "MAX_EPOCH": 300,
        "MAX_ITER": 0,  # 0: MAX_EPOCH counts
        "WARMUP_EPOCHS": 0.0,
        "WARMUP_START_LR": 0.01,
        "MOMENTUM": 0.9,
        "DAMPENING": 0.0,
        "NESTEROV": True,
        # past gradients take a new rate too (Caffe2's momentum correction, torch's own way)
        "SCALE_MOMENTUM": True,
        "WEIGHT_DECAY": 1e-4,
        "ZERO_WD_1D_PARAM": False,
        "BETAS": [0.9, 0.999],
        "CLIP_GRAD_VAL": 0.0,
        "CLIP_GRAD_L2NORM": 0.0,  # where CLIP_GRAD_VAL is 0
        "ACCUM_STEPS": 1,
        "FUSED": True,  # on a GPU, all parameters are updated by one kernel
    },
    "MIXUP": {
        "ENABLE": False,  # without it this section has no effect
        "ALPHA": 0.8,  # of Beta(ALPHA, ALPHA), a share of mixup; 0: no mixup
        # of Beta, for CutMix; with both at 0 labels are smoothed and nothing is mixed
        "CUTMIX_ALPHA": 1.0,
        "PROB": 1.0,  # that a batch is mixed
        "SWITCH_PROB": 0.5,  # that it is cut where both are on
        "LABEL_SMOOTH_VALUE": 0.1,
    },
    "TENSORBOARD": {
        "ENABLE": True,
        "CLASS_NAMES_PATH": "",  # one name a line, in label order, or JSON of names and labels
    },
    "CUDA": {
        # cuDNN times its kernels for every new shape; never with TRAIN.DETERMINISTIC
        "CUDNN_BENCHMARK": True,
        "TF32": True,  # float32 products in TensorFloat-32
    },
    "OUTPUT_DIR": "",  # "": runs/<folder and name of the file>
    "RNG_SEED": 1,
    "LOG_PERIOD": 10,  # iterations
    "LOG_MODEL_INFO": True,
}

# An entry of lists that are empty by default, or whose entries are.
ITEMS: dict[str, list[Any]] = {
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": ["model."],
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.08],
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": [0.75],
    "MODEL.CLASS_WEIGHTS": [1.0],
    "MODEL.OPTIONS": ["growth_rate=24"],
    "MODEL.FREEZE_STAGES": [1],
    "RESNET.NUM_BLOCK_TEMP_KERNEL": [[3]],
    "OCTCONV.STAGES": [2],
    "NONLOCAL.LOCATION": [[[1]]],
    "SOLVER.STEPS": [0.0],
    "SOLVER.STEP_ITERS": [0],
    "SOLVER.LRS": [1.0],
}


AUTO = ("auto", "true", "false")

# PySlowFast's classes of networks that MODEL.ARCH and RESNET.DEPTH describe here too.
MODEL_NAMES = (
    *("", "ResNet", "ResNet_nopool", "SlowFast"),
    *("PTVResNet", "PTVSlowFast", "PTVX3D", "PTVCSN", "PTVR2plus1D"),
)

# The allowed values of settings, from the tables that implement them.
CHOICES: dict[str, tuple[Any, ...]] = {
    "MODEL.COMPUTE_IN_2D": AUTO,
    "MODEL.STEM_SPACE_TO_DEPTH": AUTO,
    "OCTCONV.FUSED": AUTO,
    "TRAIN.DATASET": ("video", "imagenet", "cifar10"),
    "TEST.DATASET": ("video", "imagenet", "cifar10"),
    "TRAIN.AMP_DTYPE": ("bfloat16", "float16"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "DATA.DECODER": BACKENDS,
    "DATA.LIST_FORMAT": (*FORMATS, "shards"),
    "TEST.PRECISION": get_args(Precision),
    "DATA.SAMPLING_RULE": RULES,
    "DATA.ENSEMBLE_METHOD": ENSEMBLES,
    "MODEL.MODEL_NAME": MODEL_NAMES,
    "MODEL.LOSS_FUNC": tuple(LOSSES),
    "MODEL.HEAD_ACT": ("", *get_args(HeadAct)),
    "RESNET.DEPTH": tuple(BLOCKS),
    "RESNET.STEM_POOL_PADDING": (0, 1),
    "RESNET.STEM": tuple(STEMS),
    "RESNET.STEM_POOL": STEM_POOLS,
    "RESNET.BLOCK": ("post", "preact"),
    "OCTCONV.WIDTH_RULE": ("", *WIDTH_RULES),
    "OCTCONV.NONLOCAL": ("high", "cross"),
    "OCTCONV.DOWNSAMPLE": ("", *get_args(Downsample)),
    "NONLOCAL.INSTANTIATION": get_args(Instantiation),
    "BN.NORM_TYPE": ("batchnorm", "sync_batchnorm"),
    "SOLVER.OPTIMIZING_METHOD": tuple(OPTIMIZERS),
    "SOLVER.LR_POLICY": tuple(SCHEDULES),
}

"""PySlowFast's settings beside those of this package: which are renamed, turned, refused or
ignored."""

from typing import Any

# Values, in lower case, that mean another one of ours: PySlowFast's, which capitalizes data sets
# itself, and spellings of version 0.1.0.
ALIASES: dict[tuple[str, Any], Any] = {
    ("TRAIN.DATASET", "kinetics"): "video",
    ("TEST.DATASET", "kinetics"): "video",
    ("TRAIN.DATASET", "ptvkinetics"): "video",
    ("TEST.DATASET", "ptvkinetics"): "video",
    ("DATA.LIST_FORMAT", "unlabelled"): "unlabeled",
}


# PySlowFast's settings of which only these values mean what this package builds; others are
# refused.
ONLY: dict[str, tuple[Any, ...]] = {
    "TRAIN.CHECKPOINT_TYPE": ("pytorch", "caffe2"),  # a file's kind is found in the file
    "TEST.CHECKPOINT_TYPE": ("pytorch", "caffe2"),
    "TRAIN.CHECKPOINT_IN_INIT": (False,),
    "TEST.NUM_TEMPORAL_CLIPS": ([],),
    "DATA.INPUT_CHANNEL_NUM": ([3], [3, 3]),
    "DATA.USE_OFFSET_SAMPLING": (False,),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": (False,),
    "DATA.TRAIN_JITTER_FPS": (0,),
    "DATA.TRAIN_CROP_NUM_TEMPORAL": (1,),
    "DATA.TRAIN_CROP_NUM_SPATIAL": (1,),
    "DATA.COLOR_RND_GRAYSCALE": (0,),
    "DATA.TIME_DIFF_PROB": (0,),
    "DATA.SSL_COLOR_JITTER": (False,),
    "DATA.LOADER_CHUNK_SIZE": (0,),
    "DATA.SKIP_ROWS": (0,),
    "DATA.DUMMY_LOAD": (False,),
    "AUG.ENABLE": (False,),
    "DETECTION.ENABLE": (False,),
    "MODEL.DROPCONNECT_RATE": (0,),
    "MODEL.DETACH_FINAL_FC": (False,),
    "MODEL.FP16_ALLREDUCE": (False,),
    "RESNET.TRANS_FUNC": ("bottleneck_transform",),
    "RESNET.ZERO_INIT_FINAL_CONV": (False,),
    "RESNET.SPATIAL_STRIDES": ([[1], [2], [2], [2]], [[1, 1], [2, 2], [2, 2], [2, 2]]),
    "RESNET.SPATIAL_DILATIONS": ([[1], [1], [1], [1]], [[1, 1], [1, 1], [1, 1], [1, 1]]),
    "BN.MOMENTUM": (0.1,),
    "BN.GLOBAL_SYNC": (False,),
    "SOLVER.COSINE_AFTER_WARMUP": (False,),
    "SOLVER.LARS_ON": (False,),
    "SOLVER.LAYER_DECAY": (1,),
}


# What to do about a value that is refused; LEAVE_OUT for what else ONLY holds.
LEAVE_OUT = "leave it out: nothing else is built here (docs/from_pyslowfast.md)"
DATA_SET = "video reads lists of any data set, in the formats of data_lists/README.md"
ADVICE: dict[str, str] = {
    "TRAIN.DATASET": DATA_SET,
    "TEST.DATASET": DATA_SET,
    "TEST.NUM_TEMPORAL_CLIPS": "TEST.NUM_ENSEMBLE_VIEWS counts clips",
    "AUG.ENABLE": (
        "RandAugment and erasing are not here; MIXUP and DATA.TRAIN_JITTER_SCALES_RELATIVE are"
    ),
    "DETECTION.ENABLE": "boxes of actors are not classified here, whole clips are: set it False",
    "MODEL.MODEL_NAME": "MODEL.ARCH with RESNET.DEPTH chooses the network: leave it out",
    "RESNET.TRANS_FUNC": "X3D is MODEL.ARCH x3d_m, with pytorchvideo's weights: leave it out",
    "BN.GLOBAL_SYNC": "BN.NORM_TYPE sync_batchnorm synchronizes all processes",
}


# By channel, in its files in the order before DATA.REVERSE_INPUT_CHANNEL; here after it.
NORMALIZATION = ("DATA.MEAN", "DATA.STD")


# PySlowFast's settings and sections that change nothing here; a file may keep them.
LAUNCHER = ("NUM_GPUS", "NUM_SHARDS", "SHARD_ID", "DIST_BACKEND")


NO_EFFECT = (
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR",  # a loss that is not finite stops a run
    # a weights file always starts at epoch 0; AUTO_RESUME continues a run
    "TRAIN.CHECKPOINT_EPOCH_RESET",
    "TEST.SAVE_RESULTS_PATH",  # results are in OUTPUT_DIR
    "DATA.DECODING_BACKEND",  # chosen per file; DATA.DECODER
    "DATA.DECODING_SHORT_SIZE",
    # this and what follows is of images or of self-supervised training
    "DATA.PATH_TO_PRELOAD_IMDB",
    "DATA.TRAIN_PCA_EIGVAL",
    "DATA.TRAIN_PCA_EIGVEC",
    "DATA.LOADER_CHUNK_OVERALL_SIZE",
    "DATA.SSL_COLOR_BRI_CON_SAT",
    "DATA.SSL_COLOR_HUE",
    "DATA.SSL_MOCOV2_AUG",
    "DATA.SSL_BLUR_SIGMA_MIN",
    "DATA.SSL_BLUR_SIGMA_MAX",
    "DATA.IN22K_TRAINVAL",
    "DATA.IN22k_VAL_IN1K",
    "DATA.IN_VAL_CROP_RATIO",
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE",
    "MODEL.SINGLE_PATHWAY_ARCH",
    "MODEL.MULTI_PATHWAY_ARCH",
    "RESNET.INPLACE_RELU",
    "BN.NUM_SYNC_DEVICES",
    "BN.NUM_SPLITS",
    # the batch is global here: SOLVER.BASE_BATCH_SIZE scales the rate
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS",
    "SOLVER.GAMMA",  # this and the next two are of policies that are refused
    "SOLVER.STEP_SIZE",
    "SOLVER.WARMUP_FACTOR",
    "TENSORBOARD.CONFUSION_MATRIX",  # always drawn
    "TENSORBOARD.HISTOGRAM",
    "TENSORBOARD.LOG_DIR",  # OUTPUT_DIR/tensorboard
    "TENSORBOARD.MODEL_VIS",
    "TENSORBOARD.CATEGORIES_PATH",
    "TENSORBOARD.PREDICTIONS_PATH",
    "TENSORBOARD.WRONG_PRED_VIS",
)
OTHER_TASKS = (
    "AUG",
    "AVA",
    "BENCHMARK",
    "CONTRASTIVE",
    "DEMO",
    "DETECTION",
    "MASK",
    "MULTIGRID",
    "MVIT",
    "SSL",
    "TASK",
    "VIS_MASK",
    "X3D",
)


def of_one_machine(cfg: Any, given: dict[str, Any]) -> str:
    """What to set where `given` are settings of several machines: there each has TRAIN.BATCH_SIZE,
    here all together have it. "" for one machine."""
    machines = given.get("NUM_SHARDS")
    if not isinstance(machines, int) or machines < 2:
        return ""
    batch = cfg.TRAIN.BATCH_SIZE
    meant = {"TRAIN.BATCH_SIZE": machines * batch}
    if given.get("SOLVER.BASE_LR_SCALE_NUM_SHARDS") is True:
        for name in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR"):
            meant[f"SOLVER.{name}"] = machines * cfg.SOLVER[name]
    said = ", ".join(f"{key} {value:g}" for key, value in meant.items())
    return (
        f"with NUM_SHARDS {machines} PySlowFast gives TRAIN.BATCH_SIZE {batch} to each machine;"
        f" here all machines share it, so that its run is {said}"
    )

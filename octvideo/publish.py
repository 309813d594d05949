"""A trained network as a folder to publish, which `octvideo.load(folder)` reads and the Hugging
Face Hub shows.

model.safetensors   the weights, with all that is needed to use them: network, classes, input
config.yaml         the settings of the training, without the files of its machine
classes.txt         a class a line, in the order of the labels
input.json          what the weights assume of a clip
README.md           the model card
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from octvideo import hub
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import count, without
from octvideo.config.yaml_text import parse_settings
from octvideo.download import hash_of
from octvideo.errors import CheckpointError, DataError
from octvideo.files import is_local, is_there, make_output_folder, write_atomically
from octvideo.models.network import alpha_of
from octvideo.report.environment import versions
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import PUBLISHED, pretrained_networks, read_and_hash

SHOWN_CLASSES = 20
_DIGEST = "<sha256>"  # until the weights are written, for the card is made first
WRITTEN = (PUBLISHED, "config.yaml", "classes.txt", "input.json", "README.md")
# Settings that name files of the training's machine; without them the lists say what these did.
_FILES = (
    "DATA.PATH_PREFIX",
    "DATA.SHARD_CACHE_DIR",
    "TENSORBOARD.CLASS_NAMES_PATH",
    "TEST.CHECKPOINT_FILE_PATH",
)
_START = (
    "TRAIN.CHECKPOINT_FILE_PATH",
    "TRAIN.CHECKPOINT_INFLATE",
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN",
)


@dataclass(frozen=True, slots=True)
class Card:
    """The parts of a model card that are not in the checkpoint.

    name: of the network, for people. license: of the weights, as the Hub spells it ("cc-by-4.0").
    results: the content of results.json of these weights; {} if they were not tested.
    """

    name: str
    license: str = ""
    results: Mapping[str, Any] | None = None


def write_card(
    checkpoint_path: str,
    folder: str | Path,
    *,
    name: str = "",
    license: str = "",
    results: str | Path = "",
) -> Path:
    """Write the folder and return the path of its model card.

    results: a results.json of these weights; by default that of the checkpoint's run, if there is
    one. Files of this machine are left out of the settings, other paths cut to their last part.
    Raises CheckpointError for weights without network, classes or a part of their input and for a
    network that cannot be built, DataError for results of other weights, and as
    `require_card_folder` does; then nothing is written.
    """
    require_card_folder(folder)
    checkpoint = read_and_hash(checkpoint_path)
    if not (checkpoint.network and checkpoint.class_names and checkpoint.input.num_frames):
        raise CheckpointError(
            f"{checkpoint_path}: does not say its video network, classes and input; convert it"
            " (`octvideo convert`)"
        )
    checkpoint.require_whole_input()
    folder = Path(folder)
    name = name or folder.resolve().name
    settings = parse_settings(checkpoint.recipe, checkpoint_path)
    recipe = yaml.safe_dump(_published(settings), sort_keys=True) if settings else ""
    public = replace(checkpoint, recipe=recipe)
    text = card_text(public, Card(name, license, _results_of(checkpoint, results)), _DIGEST)
    make_output_folder(str(folder))
    data = checkpoint.training.get("data")
    training = {"data": data} if isinstance(data, dict) else {}
    bare = replace(public, training=training, average=None, state=public.weights)
    bare.write(str(folder / PUBLISHED))
    _write(folder / "config.yaml", public.recipe)
    _write(folder / "classes.txt", "".join(f"{c}\n" for c in public.class_names))
    seen = public.input.as_dict() | {"network": public.network}
    _write(folder / "input.json", json.dumps(seen, indent=1) + "\n")
    _write(folder / "README.md", text.replace(_DIGEST, hash_of(folder / PUBLISHED)))
    return folder / "README.md"


def require_card_folder(folder: str | Path) -> None:
    """Raise DataError for a folder in which a card would replace files of something else, as of a
    run or a project."""
    folder = Path(folder)
    there = [name for name in WRITTEN if is_there(folder / name)]
    if there and not _is_card(folder):
        raise DataError(
            f"{folder / there[0]}: was not written by `octvideo export --card`, which would replace"
            " it; name another folder, or move the file away"
        )


def _is_card(folder: Path) -> bool:
    card = folder / "README.md"
    if not (card.is_file() and (folder / PUBLISHED).is_file()):
        return False
    front = card.read_text(encoding="utf-8", errors="replace").split("\n---\n")[0].split("\n")
    return front[0] == "---" and "library_name: octvideo" in front


def card_text(checkpoint: Checkpoint, card: Card, sha256: str) -> str:
    """The model card as Markdown, with the facts that the Hub reads in front."""
    front = yaml.safe_dump(_front_matter(checkpoint, card), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n" + "\n".join(_body(checkpoint, card, sha256)) + "\n"


def _front_matter(checkpoint: Checkpoint, card: Card) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": card.license or "unknown",
        "library_name": "octvideo",
        "pipeline_tag": "video-classification",
        "tags": ["octvideo", "action-recognition", checkpoint.network["name"]],
    }
    if found := _metrics(card.results or {}):
        front["model-index"] = [
            {
                "name": card.name,
                "results": [
                    {
                        "task": {"type": "video-classification"},
                        "dataset": {"name": _list_of(card.results or {}), "type": "custom"},
                        "metrics": [{"type": t, "value": v, "name": n} for t, v, n in found],
                    }
                ],
            }
        ]
    return front


def _metrics(results: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    if "top1_acc" in results:
        return [
            ("accuracy", results["top1_acc"], "top-1, %"),
            ("accuracy", results["top5_acc"], "top-5, %"),
        ]
    return [("mean_average_precision", results["map"], "mAP")] if "map" in results else []


def _body(checkpoint: Checkpoint, card: Card, sha256: str) -> Iterator[str]:
    network, seen = checkpoint.network, checkpoint.input
    size = seen.crop_size or 224
    cost = count(network_of(checkpoint), (3, seen.num_frames or 1, size, size))
    alpha = alpha_of(network)
    yield f"# {card.name}\n"
    yield (
        f"{network['name']}{f' with octave ratio alpha = {alpha:g}' if alpha else ''}, trained with"
        " octvideo.\n"
    )
    yield from _accuracy(card.results or {})
    yield "## Use\n"
    yield "```python\nimport octvideo\n"
    yield f'recognizer = octvideo.load("{card.name}")  # this folder, or hf://user/name'
    yield 'print(recognizer.predict("video.mp4"))\n```\n'
    yield "```bash"
    yield f"octvideo predict --model {card.name} --video video.mp4"
    yield f"octvideo test --checkpoint {card.name}/{PUBLISHED} --list test.csv"
    if checkpoint.recipe:
        yield (
            f"octvideo train --cfg {card.name}/config.yaml DATA.PATH_TO_DATA_DIR=my_data"
            f" TRAIN.CHECKPOINT_FILE_PATH={card.name}/{PUBLISHED} TRAIN.CHECKPOINT_INFLATE=false"
        )
    yield "```\n"
    yield "## Facts\n"
    yield "| | |\n|---|---|"
    yield f"| parameters | {cost.parameters / 1e6:.2f} M |"
    yield f"| multiply-adds of one view | {cost.macs / 1e9:.2f} G{without(cost.uncounted)} |"
    yield (
        f"| input | {seen.num_frames} frames, stride {seen.sampling_rate}, at {seen.target_fps:g}"
        f" frames per second, {size} x {size} of a short side of {seen.short_side or size} |"
    )
    yield f"| mean, standard deviation | {_numbers(seen.mean)}; {_numbers(seen.std)} |"
    several = checkpoint.multi_label
    output = "a probability per class" if several else "probabilities that sum to 1"
    yield f"| output | {output} |"
    yield f"| license of the weights | {card.license or 'not stated'} |"
    yield f"| {PUBLISHED} | sha256 {sha256} |"
    for what, value in _data_facts(checkpoint, card.results or {}):
        yield f"| {what} | {value} |"
    made_with = ", ".join(f"{package} {number}" for package, number in versions().items())
    yield f"| exported with | {made_with} |"
    names = checkpoint.class_names
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    in_code = [name.replace("`", "'").replace("\n", " ") for name in names]
    shown = ", ".join(f"`{c}`" for c in in_code[:SHOWN_CLASSES])
    yield f"\n## Classes\n\n{len(names)}, in `classes.txt`: {shown}{more}"


def _accuracy(results: Mapping[str, Any]) -> Iterator[str]:
    views = results.get("protocol", {}).get("views", "")
    where = f"{results.get('num_videos')} videos of {_list_of(results)}, {views} views of each"
    if unread := results.get("num_unread"):
        where += f"; {unread} could not be read, and count as wrong"
    if "top1_acc" in results:
        low, high = results["top1_interval"]
        yield (
            f"Top-1 {results['top1_acc']:.2f} % (95 % interval {low:.1f} to {high:.1f}), "
            f"top-5 {results['top5_acc']:.2f} %: {where}.\n"
        )
    elif "map" in results:
        yield f"mAP {100 * results['map']:.2f} %: {where}.\n"
    else:
        yield (
            "These weights were not tested: `octvideo test --checkpoint ...`, then export again.\n"
        )


def _data_facts(checkpoint: Checkpoint, results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fingerprints: of a list's names and labels, which show whether two runs used one list."""
    data = checkpoint.training.get("data")
    if isinstance(data, dict):
        yield (
            "training list",
            f"{data.get('samples')} entries, fingerprint {data.get('fingerprint')}",
        )
    if tested := results.get("data"):
        yield "test list", f"{tested['entries']} entries, fingerprint {tested['fingerprint']}"
    if made := results.get("made_with"):
        yield "tested with", ", ".join(f"{k} {v}" for k, v in made.items() if v)


def _results_of(checkpoint: Checkpoint, given: str | Path) -> dict[str, Any]:
    """A checkpoint's results, {} if it has none. What is given must be of these weights; what lies
    beside them may be anything."""
    run = Path(checkpoint.path).absolute().parent.parent
    path = Path(given) if given else run / "results.json"
    if not given and not path.is_file():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        of_these = results["protocol"]["checkpoint_sha256"] == checkpoint.sha256
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not given:
            return {}
        raise DataError(
            f"{path}: is no results.json of `octvideo test` ({type(error).__name__})"
        ) from error
    if of_these:
        return dict(results)
    if given:
        raise DataError(
            f"{path}: is of other weights than {checkpoint.path}; test these, or leave it out"
        )
    return {}


def _write(path: Path, text: str) -> None:
    write_atomically(str(path), lambda file: file.write(text.encode()))


def _list_of(results: Mapping[str, Any]) -> str:
    """The last two parts of the list's path, so that no local folder is published."""
    return "/".join(PurePath(results.get("protocol", {}).get("list") or "test.csv").parts[-2:])


def _published(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that hold on other machines. Weights to start from stay if they are fetched by name;
    others go, with what is said of them."""
    public: dict[str, Any] = _without_places(settings)
    train = public.get("TRAIN")
    start = train.get("CHECKPOINT_FILE_PATH") if isinstance(train, dict) else None
    is_fetched = str(start).startswith(hub.SCHEME) or str(start) in pretrained_networks()
    for key in _FILES if is_fetched else _FILES + _START:
        section, _, name = key.partition(".")
        if isinstance(public.get(section), dict):
            public[section].pop(name, None)
    return {key: value for key, value in public.items() if value != {}}  # which is no setting


def _without_places(value: Any) -> Any:
    """Settings with each absolute path cut to its last part; an address on the Hub is no place."""
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if not isinstance(value, str) or value.startswith(hub.SCHEME):
        return value
    return PurePath(value).name if value.startswith(("/", "~")) or not is_local(value) else value


def _numbers(values: tuple[float, ...] | None) -> str:
    return ", ".join(f"{value:.4g}" for value in values or ())

"""The oracles in rows/: one of every official row of the table of public networks, as the official
code computes it.

    python make_rows.py OCTCONV rows

OCTCONV: a checkout of github.com/facebookresearch/OctConv. Needs mxnet 1.9.1 and numpy 1.23.5
(Python 3.11). The networks of the ablation are of its symbol code, the others of its gluon code.
"""

import csv
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
from write_params import Oracle, draw, network_input

np.bool = bool  # mxnet 1.9.1 names what numpy has removed.

import mxnet as mx  # noqa: E402

TABLE = Path(__file__).parents[3] / "octvideo/weights/pretrained.csv"


def symbol_network(name: str, ratio: float):
    import symbol_densenet
    import symbol_resnetv2

    depth = int(re.search(r"(\d+)", name)[1])
    if name.startswith("densenet"):
        return symbol_densenet.get_linear(1000, depth, ratio=ratio)
    options = {"group": 32, "scaler": 2} if "resnext" in name else {"use_se": "_se_" in name}
    return symbol_resnetv2.get_linear(1000, depth, ratio=ratio, **options)


def of_symbol(name: str, ratio: float, seed: int, shape: list[int]) -> Oracle:
    network = symbol_network(name, ratio)
    shapes, _, aux_shapes = network.infer_shape(data=tuple(shape))
    named = zip(network.list_arguments(), shapes, strict=True)
    params = {f"arg:{n}": list(s) for n, s in named if n != "data"}
    named = zip(network.list_auxiliary_states(), aux_shapes, strict=True)
    params |= {f"aux:{n}": list(s) for n, s in named}
    oracle = {"kind": "symbol", "seed": seed, "input": shape, "params": params}
    drawn = {n: mx.nd.array(draw(seed, n[4:], s)) for n, s in params.items()}
    arguments = {n[4:]: a for n, a in drawn.items() if n.startswith("arg:")}
    states = {n[4:]: a for n, a in drawn.items() if n.startswith("aux:")}
    arguments["data"] = mx.nd.array(network_input(oracle))
    bound = network.bind(mx.cpu(), arguments, aux_states=states, grad_req="null")
    return oracle | {"logits": bound.forward(is_train=False)[0].asnumpy()}


def of_gluon(name: str, ratio: float, seed: int, shape: list[int]) -> Oracle:
    from utils import get_model

    options = {"use_se": "se_" in name} if "resnet" in name else {}
    network = get_model(name.removeprefix("se_"), classes=1000, ratio=ratio, **options)
    network.initialize()
    oracle = {"kind": "gluon", "seed": seed, "input": shape}
    data = mx.nd.array(network_input(oracle))
    network(data)  # Shapes are known after a first call.
    parameters = network._collect_params_with_prefix()
    oracle["params"] = {n: [p.name, list(p.shape)] for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.set_data(mx.nd.array(draw(seed, parameter.name, parameter.shape)))
    return oracle | {"logits": network(data).asnumpy()}


def make(row: str, url: str, seed: int) -> Oracle:
    family, alpha = re.fullmatch(r"(.*)_a(\d+)_in1k", row).groups()
    shape = [1, 3, 160, 160]
    if "/ablation/" in url:
        oracle = of_symbol(family, int(alpha) / 1000, seed, shape)
    else:
        name = Path(url).name.partition("_alpha")[0].replace("-", "_")
        oracle = of_gluon(name, int(alpha) / 1000, seed, shape)
    oracle["logits"] = [[round(float(x), 6) for x in logits] for logits in oracle["logits"]]
    return oracle


def main(checkout: str, folder: str) -> None:
    sys.path[:0] = [f"{checkout}/utils/symbol", f"{checkout}/utils/gluon"]
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["layout"] == "official"]
    for seed, row in enumerate(rows, start=200):
        text = json.dumps(make(row["name"], row["url"], seed), separators=(",", ":"))
        path = Path(folder) / f"{row['name']}.json.gz"
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a network should take on a GPU: its roofline, from unfused to one pass per layer.

    python benchmarks/predict_gpu.py --gpu h100 --batch 8 [--model i3d_r50] [--alpha 0 .1 .2 .5] [--train]
    python benchmarks/predict_gpu.py --gpu h200 --dtype tf32 --forms fused --layers
    python benchmarks/predict_gpu.py --tflops 500 --tbps 2.6          # a card by its rates

A Markdown table; nothing runs on a GPU. A ratio is to the first alpha in the same form.
`octvideo/deploy/roofline.py` says what the forms are; docs/gpu.md what the numbers mean.
"""

import argparse

from octvideo import create_model
from octvideo.deploy.gpus import GPUS, Gpu, find_gpu
from octvideo.deploy.operators import Operators, trace_operators
from octvideo.deploy.roofline import FORMS, ITEMSIZE, Prediction, predict_operators
from octvideo.errors import exit_on_user_error
from octvideo.models.registry import input_shape_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0, 0.1, 0.2, 0.5])
    parser.add_argument("--input", type=int, nargs="+", metavar="SIZE", help="T H W, or H W")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--gpu", default="h100", help=f"one of {', '.join(GPUS)}")
    parser.add_argument("--tflops", type=float, help="sustained TFLOP/s instead of the card's")
    parser.add_argument("--tbps", type=float, help="sustained TB/s instead of the card's")
    parser.add_argument("--dtype", default="bf16", choices=ITEMSIZE)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--train", action="store_true", help="a training step, not inference")
    parser.add_argument("--launch-us", type=float, default=0.0, help="added to every kernel")
    parser.add_argument("--layers", action="store_true", help="a table of layers for each form")
    args = parser.parse_args()
    gpu = chosen_gpu(args)
    shape = (3, *args.input) if args.input else input_shape_of(args.model)
    traced: dict[float, Operators] = {}
    for alpha in args.alpha:
        model = create_model(args.model, alpha=alpha)
        traced[alpha] = trace_operators(
            model, shape, batch=args.batch, train=args.train, itemsize=ITEMSIZE[args.dtype]
        )
    found: dict[str, dict[float, Prediction]] = {}
    for form in args.forms:
        found[form] = {
            alpha: predict_operators(
                operators, gpu, dtype=args.dtype, form=form, launch_seconds=1e-6 * args.launch_us
            )
            for alpha, operators in traced.items()
        }
    what = "training step" if args.train else "inference"
    size = " x ".join(map(str, shape[1:]))
    rate, bandwidth = gpu.rates[args.dtype] / 1e12, gpu.bandwidth / 1e12
    print(
        f"{args.model}, {size}, batch {args.batch}, {args.dtype}, {what}; "
        f"{gpu.name}: {rate:.0f} TFLOP/s, {bandwidth:.2f} TB/s\n"
    )
    print_totals(found)
    if args.layers:
        for form, by_alpha in found.items():
            print_layers(form, by_alpha)


def chosen_gpu(args: argparse.Namespace) -> Gpu:
    gpu = find_gpu(args.gpu)
    rates, name = gpu.rates, gpu.name
    if args.tflops or args.tbps:
        name = "a card"
    if args.tflops:
        rates = {**rates, args.dtype: 1e12 * args.tflops}
    return Gpu(name, 1e12 * args.tbps if args.tbps else gpu.bandwidth, rates)


def print_totals(found: dict[str, dict[float, Prediction]]) -> None:
    print_row("form", "alpha", "GFLOP", "GB", "conv ms", "other ms", "ms", "ratio", "kernels")
    print_row(*["---"] * 2, *["--:"] * 7)
    for form, by_alpha in found.items():
        first = next(iter(by_alpha.values()))
        for alpha, p in by_alpha.items():
            matrix, total = 1e3 * p.matrix_seconds, 1e3 * p.seconds
            work = f"{p.flops / 1e9:.0f}", f"{p.num_bytes / 1e9:.2f}"
            times = f"{matrix:.2f}", f"{total - matrix:.2f}", f"{total:.2f}"
            ratio = f"{p.seconds / first.seconds:.3f}"
            print_row(form, f"{alpha:g}", *work, *times, ratio, str(len(p.kernels)))


def print_layers(form: str, by_alpha: dict[float, Prediction]) -> None:
    """Microseconds of each layer of the first network, and the ratio of the others to it."""
    first, *others = map(layer_seconds, by_alpha.values())
    print(f"\n{form}: microseconds at alpha {next(iter(by_alpha)):g}, ratios of the others\n")
    print_row("layer", "us", *(f"{alpha:g}" for alpha in list(by_alpha)[1:]))
    print_row("---", *["--:"] * len(by_alpha))
    for name, seconds in first.items():
        ratios = [f"{other[name] / seconds:.2f}" if name in other else "-" for other in others]
        print_row(name, f"{1e6 * seconds:.1f}", *ratios)


def layer_seconds(prediction: Prediction) -> dict[str, float]:
    return {name: layer.seconds for name, layer in prediction.layers().items()}


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    with exit_on_user_error():
        main()

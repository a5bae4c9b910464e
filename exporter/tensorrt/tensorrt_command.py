"""`python -m exporter check-tensorrt`."""

import argparse
from pathlib import Path
from typing import Any

from exporter.events import emit, say


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the exporter's."""
    command = commands.add_parser(
        "check-tensorrt",
        help="check a bundle with NVIDIA TensorRT's parser and prepare it for TensorRT",
        description="Ask NVIDIA's parser whether TensorRT accepts the bundle's graphs. The parser comes with `pip "
        "install tensorrt-rtx` (needs no GPU) or `pip install tensorrt`. With --out, also write a folder for TensorRT: "
        "the graph rewritten and compared with the probe, tensorrt.json with the trtexec command, and the engine; "
        "without the parser, the graph is written unchecked. Exit code 1: TensorRT rejects the bundle's fp32 graph "
        "even rewritten, or the parser is missing and --out is not given.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write; must not exist")
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp16",
        help="types in the written graph, which TensorRT keeps; fp16 leaves tensors of large values in fp32 (default: "
        "fp16)",
    )
    for name, meaning in (("min", "smallest"), ("opt", "most frequent"), ("max", "largest")):
        command.add_argument(f"--{name}", type=_size, metavar="NxHxW", help=f"{meaning} batch: images x height x width")
    command.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from exporter.tensorrt.engine import TensorRTUnavailableError, find_library  # noqa: PLC0415 - imports onnxruntime
    from exporter.tensorrt.prepare import check_graphs, plain_graph, prepare  # noqa: PLC0415
    from exporter.tensorrt.profile import usual_profile  # noqa: PLC0415
    from exporter.verify import verify  # noqa: PLC0415

    manifest = verify(options.bundle).manifest
    verdicts, checked_by = [], None
    try:
        library = find_library()
        verdicts, checked_by = check_graphs(options.bundle, manifest, library), library.title
        say(f"{options.bundle}: checked by {checked_by}")
    except TensorRTUnavailableError:
        if not options.out:
            raise
    for verdict in verdicts:
        prefix = "accepted after the rewrite of --out; as it is: " if verdict.rewritten else "rejected: "
        say(f"    {verdict.file:<16} {prefix + verdict.obstacles if verdict.obstacles else 'accepted as it is'}")
    needed = {plain_graph(manifest).file, *([manifest.tile.file] if manifest.tile else [])}
    fit = all(verdict.is_fit for verdict in verdicts if verdict.file in needed) if verdicts else None
    report = None
    if fit is False:
        say(f"{options.bundle}: TensorRT rejects it; export it again from its checkpoint with this version")
    elif options.out:
        sizes = usual_profile(manifest.inference.long_side).with_sizes(options.min, options.opt, options.max)
        report = prepare(options.bundle, manifest, options.out, sizes, options.precision)
        _print_report(options.out, report)
    emit(
        "done",
        bundle=str(options.bundle),
        fit=fit,
        checked_by=checked_by,
        graphs={verdict.file: {"fit": verdict.is_fit, "obstacles": verdict.obstacles} for verdict in verdicts},
        prepared=report,
    )
    return 1 if fit is False else 0


def _print_report(out: Path, report: dict[str, Any]) -> None:
    engine, agreement = report["engine"], report["onnxruntime_agreement"]
    say(f"{out}: wrote the graph; it agrees with {100 * agreement:.3f} % of the probe's pixels")
    if not report["checked_by"]:
        say(f"    the graph is unchecked. {engine['missing']}")
    else:
        run = engine["missing"] or f"agrees with {100 * engine['agreement']:.3f} % of the probe's pixels"
        say(f"    engine: {engine['built_by']} built {engine['bytes'] / 1e6:.1f} MB; {run}")
    say(f"    to build it on another machine, run there, in {out}: {report['trtexec']}")


def _size(text: str) -> tuple[int, int, int]:
    from exporter.tensorrt.profile import parse_size  # noqa: PLC0415 - imports onnxruntime

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

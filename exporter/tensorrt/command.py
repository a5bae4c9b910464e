"""`python -m exporter check-tensorrt`."""

import argparse
from pathlib import Path
from typing import Any

from exporter.events import emit, say


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the exporter's."""
    command = commands.add_parser(
        "check-tensorrt",
        help="would NVIDIA TensorRT take it? and what it needs",
        description="Look every operator, type and attribute of a bundle's graphs up in what TensorRT 10 has. With "
        "--out, also make a folder for TensorRT: the graph made fit and compared with the probe, tensorrt.json with "
        "the trtexec line, and the engine, where a TensorRT is installed that can build one here. Exit code 1: "
        "TensorRT would refuse the bundle's fp32 graph.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="the folder to make; must not exist")
    command.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp16",
        help="types of the graph in FOLDER, which TensorRT keeps to (default: fp16, where it does no harm)",
    )
    for name, meaning in (("min", "smallest"), ("opt", "most frequent"), ("max", "largest")):
        command.add_argument(f"--{name}", type=_size, metavar="NxHxW", help=f"{meaning} images x height x width")
    command.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from exporter.tensorrt.prepare import REPORT, look, plain, prepare  # noqa: PLC0415 - inspect does without onnx
    from exporter.tensorrt.profile import usual_profile  # noqa: PLC0415
    from exporter.verify import verify  # noqa: PLC0415

    manifest = verify(options.bundle).manifest
    verdicts = look(options.bundle, manifest)
    for verdict in verdicts:
        rewritten = "made fit by --out; as it is: " if verdict.rewritten else "not for TensorRT: "
        say(f"    {verdict.file:<16} {rewritten + verdict.obstacles if verdict.obstacles else 'fit as it is'}")
    needed = {plain(manifest).file, *([manifest.tile.file] if manifest.tile else [])}
    fit = all(verdict.is_fit for verdict in verdicts if verdict.file in needed)
    seen = {verdict.file: {"fit": verdict.is_fit, "obstacles": verdict.obstacles} for verdict in verdicts}
    report = None
    if options.out and fit:
        sizes = usual_profile(manifest.inference.long_side).with_sizes(options.min, options.opt, options.max)
        report = prepare(options.bundle, manifest, options.out, sizes, options.precision)
        say(f"{options.out}: the graph, {100 * report['onnxruntime_agreement']:.3f} % of the probe, and {REPORT}")
        say(f"    engine: {_engine(report['engine'])}")
        say(f"    where TensorRT is, in {options.out}: {report['trtexec']}")
    elif not fit:
        say(f"{options.bundle}: TensorRT would refuse it; export it again from its checkpoint with this version")
    emit("done", bundle=str(options.bundle), fit=fit, graphs=seen, prepared=report)
    return 0 if fit else 1


def _engine(seen: dict[str, Any]) -> str:
    built = f"{seen['built_by']} built {seen['bytes'] / 1e6:.1f} MB" if seen["built_by"] else "none was built"
    return f"{built}; " + (seen["missing"] or f"{100 * seen['agreement']:.3f} % of the probe")


def _size(text: str) -> tuple[int, int, int]:
    from exporter.tensorrt.profile import parse_size  # noqa: PLC0415 - imports onnxruntime

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

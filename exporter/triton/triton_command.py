"""`python -m exporter triton`."""

import argparse
import typing
from pathlib import Path

from exporter.events import emit, say
from exporter.manifest import Precision


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the exporter's."""
    command = commands.add_parser(
        "triton",
        help="a bundle as a model of NVIDIA Triton",
        description="Put a bundle into a Triton model repository: as NAME, which takes pixels, and as NAME_encoded, "
        "which takes image files and gives PNG masks (in Triton's container: pip install pillow). Exporting another "
        "bundle under the same name adds a version; Triton goes over to it when it loads the model again.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--out", type=Path, required=True, metavar="REPO", help="Triton's --model-repository")
    command.add_argument("--name", default="", help="the model's (default: the bundle's)")
    command.add_argument(
        "--precision",
        choices=typing.get_args(Precision),
        help="which of its graphs (default: as the version before, or fp32)",
    )
    # No defaults: config.pbtxt is written once, and what was asked for must be told from what was not.
    config = command.add_argument_group("config.pbtxt", "for the first export under a name; later ones keep the file")
    config.add_argument("--kind", choices=("auto", "cpu", "gpu"), help="where it runs (default: auto, GPUs if any)")
    config.add_argument("--instances", type=int, metavar="N", help="sessions of the graph, on each GPU (default: 1)")
    config.add_argument("--max-batch-size", type=int, metavar="N", help="images of one size at a time (default: 4)")
    config.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="largest image file, width times height (default: 24000000; 2100000 if the graph works at native size)",
    )
    config.add_argument(
        "--tensorrt",
        action="store_true",
        default=None,
        help="through onnxruntime's TensorRT provider in fp16; the first image of a new size waits for an engine",
    )
    config.add_argument("--tensorrt-cache", metavar="DIR", help="the server's folder for engines, best one that stays")
    config.add_argument(
        "--backend",
        choices=("onnxruntime", "python"),
        help="Triton's; python needs onnxruntime beside Triton (default: onnxruntime)",
    )
    config.add_argument("--rewrite-config", action="store_true", help="write it anew, these options and the defaults")
    command.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    from exporter.triton.config import Options  # noqa: PLC0415 - inspect does without onnx and onnxruntime
    from exporter.triton.repository import write_repository  # noqa: PLC0415

    names = ("kind", "instances", "max_batch_size", "backend", "tensorrt", "tensorrt_cache", "max_pixels")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    written = write_repository(
        options.bundle,
        options.out,
        name=options.name,
        precision=options.precision,
        options=Options(**given) if given else None,
        rewrite_config=options.rewrite_config,
    )
    was = "is" if written.is_new else "was already"
    say(f"{options.out}: the bundle {was} version {written.version} of {written.model}; {written.encoded} asks it")
    if not written.is_listed:
        say(f"{options.out / written.model}/config.pbtxt lost its marks: it was left as it is, without this version")
    emit(
        "done",
        repository=str(options.out),
        model=written.model,
        encoded_model=written.encoded,
        version=written.version,
        is_new=written.is_new,
    )
    return 0

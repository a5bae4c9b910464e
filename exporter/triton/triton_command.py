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
        help="write a bundle into an NVIDIA Triton model repository",
        description="Add a bundle to a Triton model repository as two models: NAME takes pixels, NAME_encoded takes "
        "image files and returns PNG masks (in Triton's container: pip install pillow). Another export under the same "
        "name adds a version; Triton serves it when it loads the model again.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--out", type=Path, required=True, metavar="REPO", help="Triton's --model-repository")
    command.add_argument("--name", default="", help="name of the model (default: the bundle's name)")
    command.add_argument(
        "--precision",
        choices=typing.get_args(Precision),
        help="graph to serve (default: the precision of the model's newest version, or fp32)",
    )
    # No defaults here: an option that is given for a config.pbtxt that is kept is an error.
    config = command.add_argument_group(
        "config.pbtxt", "settings for the first export under a name; later ones keep the file"
    )
    config.add_argument(
        "--kind", choices=("auto", "cpu", "gpu"), help="device of the graph (default: auto, GPUs if any)"
    )
    config.add_argument("--instances", type=int, metavar="N", help="sessions of the graph, per GPU (default: 1)")
    config.add_argument(
        "--max-batch-size", type=int, metavar="N", help="most images of one size in a batch (default: 4)"
    )
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
        help="run on onnxruntime's TensorRT provider in fp16; the first image of a new size waits for an engine",
    )
    config.add_argument(
        "--tensorrt-cache", metavar="DIR", help="folder on the server for engines; use one that survives restarts"
    )
    config.add_argument(
        "--backend",
        choices=("onnxruntime", "python"),
        help="Triton's backend; python needs onnxruntime installed in Triton's Python (default: onnxruntime)",
    )
    config.add_argument(
        "--rewrite-config", action="store_true", help="replace the file by one with these options and the defaults"
    )
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
    verb = "is" if written.is_new else "was already"
    say(f"{options.out}: the bundle {verb} version {written.version} of {written.model}; {written.encoded} calls it")
    if not written.is_listed:
        say(
            f"{options.out / written.model}/config.pbtxt does not list this version: the comments that mark the list "
            "were removed; restore them, or add --rewrite-config"
        )
    emit(
        "done",
        repository=str(options.out),
        model=written.model,
        encoded_model=written.encoded,
        version=written.version,
        is_new=written.is_new,
    )
    return 0

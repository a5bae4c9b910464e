"""Command line: maskloop export | verify | inspect | check-tensorrt | triton, also as python -m exporter."""

import argparse
import sys
import typing
from pathlib import Path

from exporter.bundle import read_manifest
from exporter.events import SignOfLife, emit, say
from exporter.manifest import Precision
from exporter.model_card import artifacts_table, model_card, palette
from exporter.tensorrt import tensorrt_command
from exporter.triton import triton_command

INSTALL = "run `pip install 'maskloop[trainer,exporter]'`, in a checkout `make trainer`"


def main(arguments: list[str] | None = None, prog: str = "python -m exporter") -> int:
    """Run one command and return its exit code: 0 success, 1 error; argparse exits with 2 on wrong usage.

    `prog` is how the program was started, for its help.
    """
    options = parser("", prog).parse_args(arguments)
    try:
        return int(options.command(options))
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: {INSTALL}")


def _fail(message: str) -> int:
    # The event is for programs; a terminal shows the text.
    if not sys.stdout.isatty():
        emit("error", message=message)
    say(f"error: {message}")
    return 1


def _export(options: argparse.Namespace) -> int:
    if not options.checkpoint.is_file():
        raise FileNotFoundError(f"{options.checkpoint}: no such file; give the model.safetensors of a run")
    # Importing torch takes seconds; verify, inspect and usage errors do not need it.
    from exporter.export import STAGES, export  # noqa: PLC0415

    sign_of_life = SignOfLife()

    def progress(stage: str) -> None:
        step = STAGES.index(stage)
        emit("progress", step=step, steps=len(STAGES), stage=stage)
        say(f"[{step + 1}/{len(STAGES)}] {stage}")

    def skipped(reason: str) -> None:
        emit("notice", message=reason)
        say(reason)

    emit("start", checkpoint=str(options.checkpoint), bundle=str(options.out), steps=len(STAGES))
    manifest = export(
        options.checkpoint,
        options.out,
        name=options.name,
        parent=options.parent,
        weights=options.weights,
        precisions=options.precision,
        data=options.data,
        with_checkpoint=not options.without_checkpoint,
        about=options.about.read_text(encoding="utf-8-sig") if options.about else "",
        progress=progress,
        at_work=sign_of_life,
        skipped=skipped,
    )
    graph = manifest.artifacts[0]
    say(f"{options.out}: version {manifest.version}\n{artifacts_table(manifest)}")
    emit(
        "done",
        bundle=str(options.out),
        version=manifest.version,
        bytes=graph.bytes,
        mask_agreement=graph.agreement.mask,
        confidence_max_abs=graph.agreement.confidence_max_abs,
        ms_per_image=graph.speed.ms_per_image,
    )
    return 0


def _precisions(text: str) -> tuple[str, ...]:
    words, known = tuple(word.strip() for word in text.split(",")), typing.get_args(Precision)
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(f"unknown precision {unknown[0]!r}; choose from {', '.join(known)}")
    return words


def _verify(options: argparse.Namespace) -> int:
    from exporter.verify import verified_table, verify  # noqa: PLC0415 - inspect does not need onnxruntime

    verified = verify(options.bundle)
    say(
        f"{options.bundle}: valid, version {verified.manifest.version}. All checksums match. Agreement of each graph "
        f"with the stored masks of {verified.images} probe images:\n\n{verified_table(verified)}"
    )
    emit(
        "done",
        bundle=str(options.bundle),
        version=verified.manifest.version,
        images=verified.images,
        mask_agreement=verified.mask_agreement,
    )
    return 0


def _inspect(options: argparse.Namespace) -> int:
    manifest = read_manifest(options.bundle)
    sys.stdout.write(manifest.to_json() if options.json else model_card(manifest))
    if options.palette or (sys.stdout.isatty() and not options.json):
        sys.stdout.write("\n" + palette(manifest))
    return 0


def parser(_chosen: str, prog: str) -> argparse.ArgumentParser:
    """Return the parser of all commands, whichever is chosen: it is quick to build."""
    whole = argparse.ArgumentParser(
        prog=prog,
        description="Export a checkpoint to a bundle: a folder with an ONNX graph that takes RGB images and returns "
        "masks, test images to verify it, and a model card.",
        epilog="Start with: %(prog)s export runs/NAME/model.safetensors --out bundles/NAME. Then verify the "
        "bundle, or serve it with maskloop serve --model bundles/NAME. Format: exporter/BUNDLE.md.",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    _add_export_options(
        commands.add_parser(
            "export",
            help="export a checkpoint to a bundle",
            description="Write a bundle after comparing it with PyTorch. The folder appears complete or not at all. "
            "JSON lines on stdout, messages on stderr.",
        )
    )

    command = commands.add_parser(
        "verify",
        help="check that a bundle is valid",
        description="Check the format and the checksums of a bundle, run its probe images, and print the agreement "
        "of the masks.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.set_defaults(command=_verify)

    command = commands.add_parser("inspect", help="print the model card of a bundle, or its manifest as JSON")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--json", action="store_true", help="print manifest.json after checking its fields")
    command.add_argument("--palette", action="store_true", help="print the class colours (default on a terminal)")
    command.set_defaults(command=_inspect)

    tensorrt_command.add_to(commands)
    triton_command.add_to(commands)
    return whole


def _add_export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="model.safetensors of a run")
    command.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder to create; must not exist")
    command.add_argument("--name", default="", help="display name (default: the encoder's name)")
    command.add_argument(
        "--precision",
        type=_precisions,
        default=("fp32",),
        metavar="P,P",
        help="graphs to write: fp32 (always), fp16 (for GPUs), int8 (for CPUs; needs --data). A graph that differs too "
        "much from PyTorch is not kept, and the command prints the reason (default: fp32)",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DATASET",
        help="data set of the training: the graphs are measured on up to 200 of its val images",
    )
    command.add_argument("--parent", metavar="VERSION", help="version of the bundle that training started from")
    command.add_argument(
        "--weights",
        choices=("fp32", "fp16"),
        default="fp32",
        help="storage of the weights of fp32 graphs; fp16 halves the file, the arithmetic stays fp32 (default: fp32)",
    )
    command.add_argument(
        "--without-checkpoint",
        action="store_true",
        help="leave out model.safetensors: a smaller folder, from which training cannot continue",
    )
    command.add_argument("--about", type=Path, metavar="FILE.md", help="Markdown to add to the model card")
    command.set_defaults(command=_export)


if __name__ == "__main__":
    sys.exit(main())

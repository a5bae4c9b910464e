"""The command line: python -m exporter export | verify | inspect | check-tensorrt | triton."""

import argparse
import sys
import typing
from pathlib import Path

from exporter.bundle import read_manifest
from exporter.events import emit, say
from exporter.manifest import Precision
from exporter.model_card import artifacts_table, model_card
from exporter.palette import palette
from exporter.tensorrt import tensorrt_command
from exporter.triton import triton_command


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 error (2 is argparse's, for words it does not know)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (ValueError, OSError) as error:
        emit("error", message=str(error))
        say(f"error: {error}")
        return 1


def _export(options: argparse.Namespace) -> int:
    if not options.checkpoint.is_file():
        raise FileNotFoundError(f"{options.checkpoint}: no such file; give a run's model.safetensors")
    # torch takes seconds to import, and verify, inspect and a mistyped name do without it.
    from exporter.export import STAGES, export  # noqa: PLC0415

    def progress(stage: str) -> None:
        emit("progress", step=STAGES.index(stage), steps=len(STAGES), stage=stage)
        say(f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage}")

    def refused(reason: str) -> None:
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
        about=options.about.read_text(encoding="utf-8") if options.about else "",
        progress=progress,
        refused=refused,
    )
    artifact = manifest.artifacts[0]
    say(f"{options.out}: version {manifest.version}\n{artifacts_table(manifest)}")
    emit(
        "done",
        bundle=str(options.out),
        version=manifest.version,
        bytes=artifact.bytes,
        mask_agreement=artifact.agreement.mask,
        confidence_max_abs=artifact.agreement.confidence_max_abs,
        ms_per_image=artifact.speed.ms_per_image,
    )
    return 0


def _precisions(text: str) -> tuple[Precision, ...]:
    """The words of --precision. Raises ArgumentTypeError for one that is none."""
    known: dict[str, Precision] = {precision: precision for precision in typing.get_args(Precision)}
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return tuple(known[word] for word in words)


def _verify(options: argparse.Namespace) -> int:
    from exporter.verify import verified_table, verify  # noqa: PLC0415 - inspect does without onnxruntime

    verified = verify(options.bundle)
    say(
        f"{options.bundle}: sound, version {verified.manifest.version}. Every file has its checksum, and "
        f"{verified.images} probe images ran through each graph:\n\n{verified_table(verified)}"
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m exporter",
        description="Turn a checkpoint into a bundle: one folder with an ONNX graph that takes a camera's pixels and "
        "gives masks, a probe to check it by, and a model card.",
        epilog="Start with: python -m exporter export runs/NAME/model.safetensors --out bundles/NAME; then verify it, "
        "or serve it with python -m service serve --model bundles/NAME. The format: exporter/BUNDLE.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "export",
        help="checkpoint to bundle",
        description="Make a bundle. It is compared with PyTorch first and appears complete or not at all. JSON lines "
        "on stdout, sentences on stderr.",
    )
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a run's model.safetensors")
    command.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the folder to make; must not exist")
    command.add_argument("--name", default="", help="for people (default: the encoder's name)")
    command.add_argument(
        "--precision",
        type=_precisions,
        default=("fp32",),
        metavar="P,P",
        help="graphs to make, of fp32 (always), fp16 (for GPUs) and int8 (for CPUs; needs --data). One that differs "
        "too much from PyTorch is not kept, and the command says why (default: fp32)",
    )
    command.add_argument(
        "--data",
        type=Path,
        metavar="DATASET",
        help="the data set that it was trained on: up to 200 of its val images judge the graphs",
    )
    command.add_argument("--parent", metavar="VERSION", help="version of the bundle that training started from")
    command.add_argument(
        "--weights",
        choices=("fp32", "fp16"),
        default="fp32",
        help="how the file stores them; fp16 halves it, and the arithmetic stays fp32 (default: fp32)",
    )
    command.add_argument(
        "--without-checkpoint",
        action="store_true",
        help="leave model.safetensors out: a smaller folder, from which no training can go on",
    )
    command.add_argument("--about", type=Path, metavar="FILE.md", help="a paragraph of your own for the model card")
    command.set_defaults(command=_export)

    command = commands.add_parser(
        "verify",
        help="is a bundle what it says?",
        description="Check a bundle's format and checksums, run its probe, and say how well the masks agree.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.set_defaults(command=_verify)

    command = commands.add_parser("inspect", help="what is in a bundle: its model card, or its manifest as JSON")
    command.add_argument("bundle", type=Path, metavar="BUNDLE")
    command.add_argument("--json", action="store_true", help="print manifest.json, checked")
    command.add_argument("--palette", action="store_true", help="draw the classes' colours (on a terminal: always)")
    command.set_defaults(command=_inspect)

    tensorrt_command.add_to(commands)
    triton_command.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

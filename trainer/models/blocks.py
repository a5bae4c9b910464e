"""The repeated blocks of a network: what is compiled one by one."""

from torch import nn

from trainer.models.feature_maps import Encoder


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost members of the network's lists and sequences that are made of several parts.

    So a ResNet's bottlenecks or a ConvNeXt's blocks, but not the single convolutions and norms of its stem.
    """
    blocks = []
    for child in network.children():
        if _is_list(network) and not _is_list(child) and _is_composite(child):
            blocks.append(child)
        else:
            blocks += repeated_blocks(child)
    return blocks


def compile_blocks(encoder: Encoder, backend: str = "inductor") -> None:
    """Compile each block in place by torch's compiler; names in the state dict stay as they are.

    By blocks and not as a whole: equal blocks share what was compiled, and a second image size makes their sizes
    dynamic instead of compiling the whole network anew.
    """
    for block in encoder.blocks():
        block.compile(backend=backend)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _is_composite(module: nn.Module) -> bool:
    return sum(any(True for _ in child.parameters()) for child in module.children()) > 1

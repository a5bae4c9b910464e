"""Find the operators that only the output `embedding` needs."""

import onnx_ir as ir


def embedding_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes between the encoder's last map and the output `embedding`; empty if the graph has no such output."""
    branch = _ancestors([value for value in graph.outputs if value.name == "embedding"])
    return branch - _ancestors([value for value in graph.outputs if value.name != "embedding"])


def _ancestors(values: list[ir.Value]) -> set[ir.Node]:
    """The nodes that the values depend on."""
    found: set[ir.Node] = set()
    pending = list(values)
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            pending += [value for value in node.inputs if value is not None]
    return found

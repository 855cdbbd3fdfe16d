"""Names for OpenVINO operations that depend on the ONNX graph alone.

OpenVINO numbers the operations that it adds with a counter of the process (``Reshape_386``), so the same graph read
twice has other names. An IR whose bytes are the same everywhere needs names that follow from the graph: those of the
ONNX nodes, and for an added operation the name of the ONNX node that it serves.
"""

from __future__ import annotations

from typing import Any

__all__ = ["name_operations", "owners"]

_CORE_OF_BIASED = "/WithoutBiases"


def owners(model: Any) -> dict[str, str]:
    """Says for each operation which ONNX name it stands for: its own, or that of the first user of its result.

    Args:
        model: An ``openvino.Model`` as read from ONNX.

    Returns:
        Process-unique operation name to ONNX node or tensor name. The arithmetic core of a node with bias
        (``conv1/WithoutBiases``) stands for the node.
    """
    operations = model.get_ordered_ops()
    position = {operation.get_name(): index for index, operation in enumerate(operations)}
    result: dict[str, str] = {}
    for operation in reversed(operations):
        name = operation.get_name()
        if not _is_added(operation):
            result[name] = operation.get_friendly_name().removesuffix(_CORE_OF_BIASED)
            continue
        users = {
            target.get_node().get_name() for output in operation.outputs() for target in output.get_target_inputs()
        }
        result[name] = result[min(users, key=position.__getitem__)] if users else operation.get_type_name()
    return result


def name_operations(model: Any) -> None:
    """Gives every operation of the model a name that follows from the graph, in place.

    The arithmetic core gets the ONNX node's own name, because reports of what ran use it: of ``conv1/WithoutBiases``
    and its bias ``conv1`` the convolution becomes ``conv1`` and the addition ``conv1/Bias``. OpenVINO reports a matrix
    product by the name of the bias that it absorbs, so there the addition takes the name and the product becomes
    ``fc/MatMul``.
    """
    served = owners(model)
    operations = model.get_ordered_ops()
    absorbed = _absorbed_biases(operations, served)
    cores = {op.get_name() for op in operations if _is_core(op)}
    split = {served[name] for name in cores}
    taken: set[str] = set()
    for operation in operations:
        unique, friendly = operation.get_name(), operation.get_friendly_name()
        if unique in absorbed:
            base = absorbed[unique]
        elif unique in cores:
            base = served[unique]
        elif _is_added(operation):
            base = f"{served[unique]}/{operation.get_type_name()}"
        else:
            base = f"{friendly}/Bias" if friendly in split else friendly
        operation.set_friendly_name(_free(base, taken))


def _is_core(operation: Any) -> bool:
    """Says whether this is the arithmetic of an ONNX node whose name went to the addition of its bias."""
    if operation.get_friendly_name().endswith(_CORE_OF_BIASED):
        return True
    return _is_added(operation) and operation.get_type_name().endswith(("Convolution", "ConvolutionBackpropData"))


def _absorbed_biases(operations: list[Any], served: dict[str, str]) -> dict[str, str]:
    """Maps a matrix product that only feeds a constant's addition, and that addition, to the names they get."""
    names: dict[str, str] = {}
    for product in operations:
        if product.get_type_name() != "MatMul" or _is_added(product):
            continue
        users = [target.get_node() for target in product.output(0).get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() != "Add" or not _adds_constant(users[0]):
            continue
        name = served[product.get_name()].removesuffix("/MatMul")
        names[product.get_name()] = f"{name}/MatMul"
        names[users[0].get_name()] = name
    return names


def _adds_constant(addition: Any) -> bool:
    return any(value.get_source_output().get_node().get_type_name() == "Constant" for value in addition.inputs())


def _is_added(operation: Any) -> bool:
    # Without a name from ONNX, the friendly name is the process-unique one.
    return bool(operation.get_friendly_name() == operation.get_name())


def _free(base: str, taken: set[str]) -> str:
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name

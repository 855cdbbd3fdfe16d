"""Validation of the JSON graph in a ``.pt2`` archive, before torch reads it.

Reading the graph is not passive. ``torch.export.load`` resolves operator names by attribute look-up
(``torch.os.system`` would be found), hands symbolic sizes to ``sympy.sympify`` (which calls ``eval``), imports modules
that pytree specs name, and writes node names into Python source that is executed. So everything is refused that is not
known to be needed: every string in the graph must be a plain name unless its place is listed here.

Source: torch 2.13, torch/_export/serde/serialize.py (deserialize_operator, _parse_sym_expr, sync_fx_node,
deserialize_module_call_signature), torch/utils/_pytree.py (_json_to_treespec, _defaultdict_deserialize,
enum_object_hook).
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import torch

from edgekit.errors import ModelError
from edgekit.frontend.archive_origins import clean_metadata

__all__ = ["checked_graph", "checked_payload"]

_NAME = re.compile(r"[A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")
_OPERATOR = re.compile(r"torch\.ops\.(?P<space>\w+)\.(?P<name>\w+)\.(?P<overload>\w+)")
_SYMBOL_OPERATOR = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sqrt)"
)
_WRAPPERS = ("torch.ops.higher_order.wrap_with_set_grad_enabled", "torch.ops.higher_order.wrap_with_autocast")
# Opens a file by name: the only dispatcher operators of aten that touch the file system.
_FILE_OPERATORS = ("from_file",)
_SYMPY_CALLS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|StrictLessThan|LessThan"
    "|StrictGreaterThan|GreaterThan|And|Or|Not|Abs|floor|ceiling|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv"
    "|CeilToInt|FloorToInt|CeilDiv|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt"
    "|RoundDecimal|ToFloat|Identity|IsNonOverlappingAndDenseIndicator"
)
_SYMPY_NAMES = frozenset({"oo", "int_oo", "true", "false", "True", "False"})
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_MAX_EXPRESSION = 2000
_MAX_NUMBER = 2**63
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "collections.namedtuple")
_RE_EXPORT = "export the model again without it, or compile the Python module itself"
_UNTRUSTED = "the file was changed or made by something else than torch.export.save; get it from its source again"
# Debugging information and guards: not needed, partly turned into source code by torch, so it never reaches torch.
# Where a node comes from is kept, written anew.
_DROPPED: dict[str, Any] = {"metadata": {}, "guards_code": [], "treespec_namedtuple_fields": {}}
_FREE_TEXT = ("as_string", "as_strings", "torch_version")
# Tables whose keys are names that the model chose, not words of the schema.
_BY_NAME = re.compile(
    "config|tensor_values|sym_(int|float|bool)_values|range_constraints|opset_version|as_string_to_argument"
)


def checked_graph(text: bytes, *, where: str) -> tuple[dict[str, Any], bool]:
    """Validates ``models/*.json`` and returns what torch may see.

    Without guards, everything on the CPU, and of the metadata only where nodes come from, written anew.

    Args:
        text: The record as stored.
        where: File and record, for messages.

    Returns:
        The graph, and whether devices other than the CPU had to be replaced.

    Raises:
        ModelError: Something in it could run code, or is not understood.
    """
    return _Walk(where).run(_parsed(text, where))


def checked_payload(text: bytes, *, where: str) -> tuple[dict[str, Any], bool]:
    """Validates a ``*_config.json`` record (where each weight or constant lies); like :func:`checked_graph`.

    Raises:
        ModelError: It holds custom objects, or is not understood.
    """
    config, moved = _Walk(where).run(_parsed(text, where))
    entries = config.get("config")
    if not isinstance(entries, dict):
        raise ModelError(f"{where}: expected a table 'config'", hint=_UNTRUSTED)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not _PAYLOAD.fullmatch(str(entry.get("path_name"))):
            raise ModelError(
                f"{where}: refused: '{name}' is stored as '{_stored(entry)}': custom and opaque objects run code when"
                " they are loaded",
                hint=_RE_EXPORT,
            )
    return config, moved


def _stored(entry: Any) -> Any:
    return entry.get("path_name") if isinstance(entry, dict) else entry


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not valid JSON: {error}", hint=_UNTRUSTED) from error
    if not isinstance(data, dict):
        raise ModelError(f"{where}: expected a table", hint=_UNTRUSTED)
    return data


class _Walk:
    """One walk over a record; refuses by default."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.moved = False

    def run(self, data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        try:
            return self.table(data), self.moved
        except RecursionError as error:
            raise ModelError(f"{self.where}: nested too deeply", hint=_UNTRUSTED) from error

    def table(self, data: dict[str, Any]) -> dict[str, Any]:
        if data.keys() == {"type", "index"} and isinstance(data["type"], str):
            return self.device(data)
        clean = {
            self.name(key): _DROPPED[key] if key in _DROPPED else self.entry(key, value) for key, value in data.items()
        }
        if "metadata" in data and "target" in data:
            clean["metadata"] = clean_metadata(data["metadata"])
        return clean

    def entry(self, key: str, value: Any) -> Any:
        if key in ("as_custom_obj", "custom_obj", "custom_obj_values"):
            if value:
                raise self.refused(f"'{key}' refers to a custom object, which runs code when it is loaded", _RE_EXPORT)
            return value
        if key in ("target", "as_operator"):
            return self.operator(value)
        if key == "expr_str":
            return self.expression(value)
        if key in ("in_spec", "out_spec"):
            return self.treespec(value)
        if key in ("name", "as_name") and isinstance(value, str):
            return self.identifier(value)
        if key in _FREE_TEXT:
            return value
        if _BY_NAME.fullmatch(key) and isinstance(value, dict):
            return {self.name(name): self.value(item) for name, item in value.items()}
        return self.value(value)

    def value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self.table(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return self.name(value) if isinstance(value, str) else value

    def identifier(self, text: str) -> str:
        if text and not _IDENTIFIER.fullmatch(text):
            raise self.refused(
                f"node name {text[:80]!r} is no identifier, and names become Python code when torch loads them",
                _UNTRUSTED,
            )
        return text

    def name(self, text: str) -> str:
        # Names become Python source inside torch.
        if not _NAME.fullmatch(text) and text not in ("Infinity", "-Infinity", "NaN"):
            raise self.refused(
                f"{text[:80]!r} is not a plain name, and names become Python code when torch loads them", _UNTRUSTED
            )
        return text

    def device(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["type"] in ("cpu", "meta"):
            return data
        self.moved = True
        self.name(data["type"])
        return {"type": "cpu", "index": None}

    def operator(self, target: Any) -> str:
        text = str(target)
        if _SYMBOL_OPERATOR.fullmatch(text) or text in _WRAPPERS:
            return text
        match = _OPERATOR.fullmatch(text)
        if match is None or match["space"] == "higher_order":
            what = (
                "control flow or another higher-order operator"
                if match or "higher_order" in text
                else "a Python function"
            )
            raise self.refused(f"operator {text[:80]!r} is {what}, not an ATen operator", _RE_EXPORT)
        if match["space"] not in ("aten", "prims"):
            raise self.refused(f"custom operator {text[:80]!r}: only ATen operators can be compiled", _RE_EXPORT)
        overload = match["overload"]
        full = f"{match['space']}::{match['name']}" + ("" if overload == "default" else f".{overload}")
        if match["name"] in _FILE_OPERATORS or not torch._C._dispatch_has_kernel(full):
            raise self.refused(
                f"operator {text[:80]!r} is unknown to torch {torch.__version__} or reaches outside the graph",
                _RE_EXPORT,
            )
        return text

    def expression(self, text: Any) -> str:
        if not isinstance(text, str) or len(text) > _MAX_EXPRESSION:
            raise self.refused(f"symbolic size {str(text)[:80]!r} is not an expression", _UNTRUSTED)
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, MemoryError) as error:
            raise self.refused(f"symbolic size {text[:80]!r} is not an expression", _UNTRUSTED) from error
        if not _harmless(tree.body):
            raise self.refused(
                f"symbolic size {text[:80]!r} is more than arithmetic, and torch evaluates it as Python", _UNTRUSTED
            )
        return text

    def treespec(self, text: Any) -> Any:
        if text in (None, ""):
            return text
        try:
            version, spec = json.loads(text)
        except (TypeError, ValueError) as error:
            raise self.refused("the structure of inputs and outputs cannot be read", _UNTRUSTED) from error
        if version != 1:
            raise self.refused(f"structure of inputs and outputs of version {version!r}, expected 1", _RE_EXPORT)
        self.spec(spec)
        return text

    def spec(self, spec: Any) -> None:
        if (
            not isinstance(spec, dict)
            or spec.keys() != {"type", "context", "children_spec"}
            or not isinstance(spec["children_spec"], list)
        ):
            raise self.refused("the structure of inputs and outputs cannot be read", _UNTRUSTED)
        kind, context = spec["type"], spec["context"]
        if kind is not None and (kind not in _CONTAINERS or not self.harmless_context(context)):
            raise self.refused(
                f"inputs or outputs are held in a {str(kind)[:80]!r}, which imports a module when it is loaded",
                "return a tensor, tuple, list or dict from the model and export it again",
            )
        for child in spec["children_spec"]:
            self.spec(child)

    def harmless_context(self, context: Any) -> bool:
        # torch parses the context as JSON with a hook that imports what an "__enum__" entry names.
        if not isinstance(context, str):
            return context is None
        try:
            data = json.loads(context)
        except ValueError:
            return False
        return data is None or (isinstance(data, list) and all(isinstance(key, (str, int)) for key in data))

    def refused(self, what: str, hint: str) -> ModelError:
        return ModelError(f"{self.where}: refused: {what}", hint=hint)


def _harmless(node: ast.expr) -> bool:
    """Whether an expression is arithmetic over numbers, size symbols and sympy's own constructors."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool) or (isinstance(node.value, (int, float)) and abs(node.value) <= _MAX_NUMBER)
    if isinstance(node, ast.Name):
        return node.id in _SYMPY_NAMES or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, (ast.USub, ast.UAdd)) and _harmless(node.operand)
    if isinstance(node, ast.BinOp):
        powers = not isinstance(node.op, ast.Pow) or _small(node.right)
        return powers and not isinstance(node.op, ast.MatMult) and _harmless(node.left) and _harmless(node.right)
    if isinstance(node, ast.Compare):
        return all(_harmless(item) for item in (node.left, *node.comparators))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _SYMPY_CALLS.fullmatch(node.func.id):
        return _harmless_call(node.func.id, node)
    return False


def _harmless_call(name: str, node: ast.Call) -> bool:
    args = node.args
    if name == "Symbol":
        first = args[0] if len(args) == 1 else None
        flags = all(
            isinstance(item.value, ast.Constant) and isinstance(item.value.value, bool) for item in node.keywords
        )
        return (
            isinstance(first, ast.Constant)
            and isinstance(first.value, str)
            and bool(_SYMBOL.fullmatch(first.value))
            and flags
        )
    if node.keywords or (name in ("Pow", "PowByNatural", "FloatPow") and not (len(args) == 2 and _small(args[1]))):
        return False
    if name == "Float" and args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
        return bool(re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", args[0].value)) and all(map(_harmless, args[1:]))
    return all(map(_harmless, args))


def _small(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    if isinstance(inner, ast.Call) and len(inner.args) == 1:
        return _small(inner.args[0])
    return isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float)) and abs(inner.value) <= 8

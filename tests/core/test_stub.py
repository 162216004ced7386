"""The stub of the core lists what the core has, and nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import MethodDescriptorType

import pytest

from curated_transformers import _core

STUB = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
#: Of every object, or only for type checkers.
IMPLIED = set(dir(object)) | {"__module__", "__doc__", "__buffer__", "__iter__", "__getitem__"}
ONLY_TYPES = {"DTypeName"}
#: What Python's named tuples have of their own.
OF_NAMED_TUPLES = {"n_fields", "n_sequence_fields", "n_unnamed_fields"}


def names(body):
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found.add(node.target.id)
    return found


def classes():
    return [node for node in STUB.body if isinstance(node, ast.ClassDef)]


def test_the_module_has_the_names_of_its_stub():
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert names(STUB.body) - ONLY_TYPES == public


@pytest.mark.parametrize("node", classes(), ids=lambda node: node.name)
def test_each_type_has_the_members_of_its_stub(node):
    members = set(vars(getattr(_core, node.name))) - IMPLIED
    special = {"__len__", "__array__", "__dlpack__", "__dlpack_device__"}
    special |= {"__int__", "__float__", "__index__", "__bool__"}
    members = {name for name in members if not name.startswith("__") or name in special}
    assert names(node.body) - IMPLIED == members - OF_NAMED_TUPLES


@pytest.mark.parametrize("node", classes(), ids=lambda node: node.name)
def test_properties_and_methods_are_what_the_stub_says(node):
    for member in node.body:
        if not isinstance(member, ast.FunctionDef) or member.name in IMPLIED:
            continue
        is_property = any(
            isinstance(d, ast.Name) and d.id == "property" for d in member.decorator_list
        )
        found = vars(getattr(_core, node.name))[member.name]
        assert callable(found) != is_property, member.name


@pytest.mark.parametrize("kind", [_core.Tensor, _core.Device])
def test_help_shows_the_parameters_of_the_stub(kind):
    (node,) = (node for node in classes() if node.name == kind.__name__)
    for member in node.body:
        found = vars(kind).get(getattr(member, "name", None))
        if isinstance(found, MethodDescriptorType):
            stated = [a.arg for a in [*member.args.posonlyargs, *member.args.args]]
            stated += [member.args.vararg.arg] if member.args.vararg else []
            stated += [a.arg for a in member.args.kwonlyargs]
            assert list(inspect.signature(found).parameters) == stated, member.name
            assert inspect.getdoc(found), member.name


def test_what_only_calls_return_cannot_be_made():
    with pytest.raises(TypeError, match="cannot create"):
        _core.ForwardResult()


@pytest.mark.parametrize("node", classes(), ids=lambda node: node.name)
def test_the_types_cannot_be_changed_or_subclassed(node):
    kind = getattr(_core, node.name)
    if not issubclass(kind, tuple):  # named tuples are made by Python, which lets them be changed
        with pytest.raises(TypeError, match="immutable"):
            kind.anything = 1
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (kind,), {})

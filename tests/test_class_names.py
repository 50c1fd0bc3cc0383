"""Names of the package."""

import ast
from collections import Counter
from pathlib import Path

import rlhf


def test_a_class_name_means_one_class():
    trees = [ast.parse(path.read_text()) for path in Path(rlhf.__file__).parent.rglob("*.py")]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []

"""Checks that the C core's includes point only downwards, and that Python.h stays at the border."""

import re
import sys
from pathlib import Path

# folder -> the folders that its files may include
ALLOWED = {
    "core": {"core"},
    "tensor": {"core", "tensor", "quant"},
    "quant": {"core", "tensor", "quant"},
    "ops": {"core", "tensor", "quant", "ops"},
    "cpu": {"core", "tensor", "quant", "ops", "cpu"},
    "model": {"core", "tensor", "quant", "ops", "model"},
    "generation": {"core", "tensor", "quant", "ops", "model", "generation"},
    "net": {"core", "net"},
    "cuda": {"core", "tensor", "quant", "ops"},
    "python": {"core", "tensor", "quant", "ops", "model", "generation", "cpu", "net", "python"},
}
ENDINGS = ("csrc/**/*.[ch]", "cuda/**/*.h", "cuda/**/*.cu", "cuda/**/*.cpp")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def violations(root: Path) -> list[str]:
    found = []
    files = [path for ending in ENDINGS for path in sorted(root.glob(ending))]
    for path in files:
        parts = path.relative_to(root).parts
        folder = parts[1] if parts[0] == "csrc" else parts[0]
        for name in INCLUDE.findall(path.read_text()):
            layer = name.split("/")[0]
            if layer in ALLOWED and layer not in ALLOWED[folder]:
                found.append(f"{path}: {folder} must not include {name}")
            if name == "Python.h" and folder != "python":
                found.append(f"{path}: only python/ includes Python.h")
    return found


if __name__ == "__main__":
    wrong = violations(Path(__file__).parent.parent)
    print("\n".join(wrong) or "layers: in order")
    sys.exit(bool(wrong))

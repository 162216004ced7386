"""ONNX Runtime on a graph that torch exported from the same checkpoint; encoders in f32.

The graph is run as exported and, where onnxruntime's own optimizer for transformers takes it, with
fused attention and norms as well; the faster one is timed.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-untyped-call"

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from ..workloads import Workload
from . import Runner, fastest, first_values

MODULES = ("onnxruntime", "onnx", "torch", "transformers")
DISTRIBUTIONS = ("onnxruntime", "onnx")
IMPORTS = {"encoder": "import onnxruntime"}
GRAPHS = ("exported", "fused")


def supports(workload: Workload) -> bool:
    return workload.kind == "encoder" and workload.dtype == "float32"


def graph_path(path: Path, graph: str) -> Path:
    return path / f"onnx-{graph}.onnx"


def prepare(workload: Workload, path: Path) -> None:
    exported, fused = (graph_path(path, graph) for graph in GRAPHS)
    if not exported.exists():
        export(workload, path, exported)
    if not fused.exists():
        from onnxruntime.transformers.optimizer import optimize_model

        config = workload.config
        heads, width = config["num_attention_heads"], config["hidden_size"]
        model = optimize_model(str(exported), model_type="bert", num_heads=heads, hidden_size=width)
        model.save_model_to_file(str(fused))


def export(workload: Workload, path: Path, target: Path) -> None:
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(path, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):  # type: ignore[misc]
        """Positional arguments and one output, as the exporter wants them."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    ids, mask = workload.inputs()
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Hidden(),
        (torch.from_numpy(ids), torch.from_numpy(mask).long()),
        str(target),
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "hidden": axes},
        opset_version=17,
        dynamo=False,
    )


def load(workload: Workload, path: Path, threads: int) -> Encoder:
    return Encoder(workload, path, threads)


class Encoder(Runner):
    def __init__(self, workload: Workload, path: Path, threads: int) -> None:
        ids, mask = workload.inputs()
        self.inputs = {"input_ids": ids, "attention_mask": mask.astype("int64")}
        self.path, self.threads = path, threads
        self.detail = "exported"
        self.session = self.open(self.detail)

    def open(self, graph: str) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(
            str(graph_path(self.path, graph)), options, providers=["CPUExecutionProvider"]
        )

    def run(self) -> dict[str, float]:
        start = perf_counter()
        (self.hidden,) = self.session.run(["hidden"], self.inputs)
        return {"forward": perf_counter() - start}

    def warm_up(self) -> None:
        sessions = {graph: self.open(graph) for graph in GRAPHS}

        def run_graph(graph: str) -> float:
            self.session = sessions[graph]
            return self.run()["forward"]

        self.detail = fastest(run_graph, GRAPHS)
        self.session = sessions[self.detail]

    def output(self) -> list[float]:
        return first_values(self.hidden[0, 0])

"""Guards in the formats of other systems: MLflow, and graphs for ONNX Runtime and PyTorch."""

from pushforward.export.compare import Agreement, compare, graph_inputs, run_graph
from pushforward.export.scores import export_score

__all__ = ["Agreement", "compare", "export_score", "graph_inputs", "run_graph"]

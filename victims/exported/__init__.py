"""Models exported to files: TorchScript, torch.export, ONNX and OpenVINO."""

from .conventions import CONVENTIONS, Triple
from .onnx_file import OnnxModel
from .openvino_file import OpenVinoModel
from .torch_files import ExportedModel, TorchScriptModel

__all__ = ["CONVENTIONS", "ExportedModel", "OnnxModel", "OpenVinoModel", "TorchScriptModel", "Triple"]

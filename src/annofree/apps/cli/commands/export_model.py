"""``annofree export-model``: a trained detector as one file that runs elsewhere."""

from __future__ import annotations

from annofree.apps.cli.options import training as options
from annofree.pipelines.training import export_model as pipeline

__all__ = ["export_model"]


def export_model(
    checkpoint: options.Checkpoint, out: options.ModelFile, to: options.ModelFormat = "onnx", check: options.Check = None
) -> None:
    """Write a detector as ONNX with names and preprocessing inside, once onnxruntime answers as PyTorch does.

    Needs annofree[onnx].  Images may have any size; examples/run_onnx.py runs the file with onnxruntime, numpy and Pillow
    alone.  Exit code 0: written and checked; 2: the call was wrong, or answers differ, and nothing was written.

    Example: annofree export-model detector --out model.onnx
    """
    made = pipeline.export_model(checkpoint, out, to=to, check=check)
    print(f"written: {made.path} ({made.megabytes:.1f} MB)")
    print(f"checked against PyTorch on {made.check or 'noise'}: {made.agreement}")
    if not made.agreement.answers:
        print("nothing was found in any of them, so only that was compared; pass --check IMAGES that show what it finds")

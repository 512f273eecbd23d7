"""How ONNX does what torch does and ONNX has no operation for. Import this module where the extra ``export`` is installed."""
# No annotations from the future here: onnxscript compiles the source of these functions, which is not Python for a type checker.
# pyright: reportArgumentType=false, reportReturnType=false, reportOperatorIssue=false, reportOptionalOperand=false

from onnxscript import DOUBLE, script
from onnxscript import opset18 as op

__all__ = ["quadratic_form"]


@script()
def quadratic_form(matrix: DOUBLE[...], vector: DOUBLE[...]) -> DOUBLE[...]:
    """v^T A^-1 v and log det A, ``(n, 2)``, by Gaussian elimination, one coordinate in each step of a loop."""
    side = op.Unsqueeze(vector, [2])
    first = op.Slice(vector, [0], [1], [1])
    zero = op.Sub(first, first)
    top = op.Concat(matrix, side, axis=2)
    bottom = op.Concat(op.Transpose(side, perm=[0, 2, 1]), op.Unsqueeze(zero, [2]), axis=2)
    rest = op.Concat(top, bottom, axis=1)
    log_det = op.Squeeze(zero, [1])
    size = op.Squeeze(op.Shape(vector, start=1), [0])
    for _step in range(size):
        row = op.Slice(rest, [0], [1], [1])
        pivot = op.Slice(row, [0], [1], [2])
        across = op.Div(op.Slice(row, [1], [2147483647], [2]), pivot)
        below = op.Slice(rest, [1, 0], [2147483647, 1], [1, 2])
        log_det = log_det + op.Squeeze(op.Log(pivot), [1, 2])
        rest = op.Sub(op.Slice(rest, [1, 1], [2147483647, 2147483647], [1, 2]), op.Mul(below, across))
    return op.Concat(op.Neg(op.Squeeze(rest, [2])), op.Unsqueeze(log_det, [1]), axis=1)

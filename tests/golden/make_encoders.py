"""Makes encoder*.onnx: small encoders as other projects export theirs.

In a Python of its own: ``pip install onnx``, then in ``tests/``: ``python -m golden.make_encoders``.

Features are the mean of each channel times a matrix; ``encoder_tokens`` gives them as the first of two tokens, from
images whose channels come last.
"""

from pathlib import Path

import numpy as np
from golden import weights
from onnx import TensorProto, checker, helper, numpy_helper, save

SIDE, FEATURES = 16, 5


def encoder(*, tokens: bool):
    shape = ["n", SIDE, SIDE, 3] if tokens else ["n", 3, SIDE, SIDE]
    matrix = numpy_helper.from_array(weights.weight("encoder.weight", (3, FEATURES)), "matrix")
    axes = numpy_helper.from_array(np.array([1, 2] if tokens else [2, 3], np.int64), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["features"]),
    ]
    constants, out = [matrix, axes], helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])
    if tokens:
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        nodes += [
            helper.make_node("Unsqueeze", ["features", "axis"], ["one"]),
            helper.make_node("Neg", ["one"], ["other"]),
            helper.make_node("Concat", ["one", "other"], ["tokens"], axis=1),
        ]
        out = helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["n", 2, FEATURES])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "encoder", [images], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main() -> None:
    for name, tokens in (("encoder.onnx", False), ("encoder_tokens.onnx", True)):
        model = encoder(tokens=tokens)
        checker.check_model(model)
        path = Path(__file__).parent / name
        save(model, path)
        print(name, path.stat().st_size)


if __name__ == "__main__":
    main()

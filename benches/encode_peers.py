"""Other ways to encode texts, each used as its documentation has it, in float32 unless its name says else."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from jv5kit.pretrained import Checkpoint

Encode = Callable[[list[str]], NDArray[np.float32]]

Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Token ids and attention mask, padded on the right, to token states."""

BATCH = 32
"""Texts a batch, which is the default of sentence-transformers."""


def sentence_transformers(model: Checkpoint, threads: int, device: str = "cpu", dtype: str = "float32") -> Encode:
    """sentence-transformers, which sorts and pads batches itself."""
    import torch
    from sentence_transformers import SentenceTransformer

    if threads:
        torch.set_num_threads(threads)
    encoder = SentenceTransformer(str(model.folder), device=device, model_kwargs={"dtype": dtype})

    def encode(texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(encoder.encode(texts, show_progress_bar=False), np.float32)

    return encode


def onnx_runtime(model: Checkpoint, threads: int) -> Encode:
    """ONNX Runtime on the graph that torch exports."""
    import onnxruntime
    import torch

    states, example = _traceable(model)
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        torch.onnx.export(states, example, file, dynamic_shapes=(sizes, sizes), dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return _in_batches(model, lambda *given: session.run(None, dict(zip(names, given, strict=True)))[0])


def openvino(model: Checkpoint, threads: int) -> Encode:
    """OpenVINO on the model as it converts it, in the precision that it picks for the processor."""
    import openvino

    states, example = _traceable(model)
    converted = openvino.convert_model(states, example_input=example, input=[openvino.PartialShape([-1, -1])] * 2)
    compiled = openvino.Core().compile_model(converted, "CPU", {"INFERENCE_NUM_THREADS": threads})
    return _in_batches(model, lambda *given: compiled(given)[0])


PEERS: dict[str, Callable[[Checkpoint, int], Encode]] = {
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, bfloat16": partial(sentence_transformers, dtype="bfloat16"),
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
}
"""The first one is the default, whose embeddings are the right ones."""

GPU_PEERS: dict[str, Callable[[Checkpoint, int], Encode]] = {
    "sentence-transformers": partial(sentence_transformers, device="cuda"),
    "sentence-transformers, bfloat16": partial(sentence_transformers, device="cuda", dtype="bfloat16"),
}


def _traceable(model: Checkpoint) -> tuple[Any, tuple[Any, Any]]:
    """A module of ids and mask to states, and an example of the two."""
    import torch
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(model.folder, dtype=torch.float32)
            self.model.config.use_cache = False

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            return states

    ids = torch.ones((2, 16), dtype=torch.long)
    # With some padding: a mask of ones might be traced as none.
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    return States().eval(), (ids, mask)


def _in_batches(model: Checkpoint, forward: Forward) -> Encode:
    """Tokens, sorted by length, in padded batches through ``forward``; pooled and brought to unit length."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(model.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_tokens)

    def encode(texts: list[str]) -> NDArray[np.float32]:
        tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        embeddings = np.empty((len(tokens), model.dim), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            ids, mask = _padded([tokens[i] for i in batch], model.pad_token_id)
            embeddings[batch] = _pooled(forward(ids, mask), mask, model)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings

    return encode


def _padded(batch: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.full((len(batch), len(batch[0])), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def _pooled(states: NDArray[np.float32], mask: NDArray[np.int64], model: Checkpoint) -> NDArray[np.float32]:
    lengths = mask.sum(1)
    pooled: NDArray[np.float32]
    if model.pooling == "lasttoken":
        pooled = states[np.arange(len(states)), lengths - 1]
    else:
        # A product of matrices: the mask need not be spread over the dimensions.
        pooled = ((mask / lengths[:, None]).astype(np.float32)[:, None, :] @ states)[:, 0]
    return pooled

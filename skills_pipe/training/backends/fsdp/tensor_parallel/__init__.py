"""Tensor parallelism: neighbouring ranks share every layer.

Each rank computes some attention heads, some neurons of the MLP, or some experts in its place, and some words of the
vocabulary. Between those parts all ranks of a group hold the same hidden states or, with sequence parallelism, each
holds some of the tokens.

It is a room of our own and not transformers' ``tp_plan`` because that one neither splits the sequence nor the
vocabulary, and not torch's ``parallelize_module`` because that one unties tied embeddings, forgets that the gradient
of a norm over heads or over a part of the sequence is a part of a sum, and computes on DTensors, which is slow. Only
parameters are DTensors here, so that FSDP2, the optimizer and checkpoints know which part each rank has.
"""

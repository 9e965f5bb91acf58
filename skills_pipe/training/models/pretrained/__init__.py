"""Pretrained weights on their way from safetensors files into a model or its shards, without a copy of the whole."""

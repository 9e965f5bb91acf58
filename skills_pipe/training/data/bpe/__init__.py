"""The fast way to tokens for byte-level BPE tokenizers: tiktoken, where it is proven to give the very same ids."""

"""Expert parallelism: neighbouring ranks, each with documents of its own, share the experts of a mixture.

A token travels to the ranks that have its experts, and what they make of it travels back: instead of the weights of
all experts, of which a token needs few, the ranks exchange tokens. Nothing is dropped, and no expert has a capacity.
What a rank has of the experts is sharded by FSDP2 over the ranks that have the same ones.

Ranks that share each layer (tensor parallelism) have the same tokens. They divide the experts, too: each computes with
its own what all of them have, and sends none of it to the others.
"""

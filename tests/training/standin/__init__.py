"""A device that is not the host, on machines without one: what moves between host and device is seen to be moved.

A GPU has memory of its own, and tensors of two places do not meet in one kernel. ``device.cpp`` makes such a device of
torch, called ``standin``, out of the host's memory and kernels, and carries messages between ranks through gloo. It has
no speed, no streams and no events: what a GPU does at the same time is done one after the other here.

It stays in a process once it is there, so that only processes of their own use it.
"""

"""The rule and the decoder on a device, with the bits of the processor's code.

rule, lowrank: torch, for any device. kernels: Triton, where it is installed. decoder: frames of
the range coder. staging: page-locked buffers, and copies that run beside the arithmetic. Everything
here imports torch; nothing outside imports it unless a device was asked for.
"""

"""Training with quantizers and masks: they are put into the PyTorch network, and an IR comes out.

Beside :mod:`ovyolo.train`, this is the only room that imports torch.
"""

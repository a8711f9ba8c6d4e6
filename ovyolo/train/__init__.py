"""Training a YOLOv5 network: data, network, loss and loop. Needs the ``compress`` extra (PyTorch)."""

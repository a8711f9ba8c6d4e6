"""Training: the network in PyTorch, YOLOv5's loss, the pictures, and the loop; the only rooms that import torch."""

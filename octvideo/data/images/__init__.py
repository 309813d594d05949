"""Labeled images: folders of classes, CIFAR-10, and their crops."""

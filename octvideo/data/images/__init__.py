"""Labeled images: folders of classes, CIFAR-10, and the crops that a network sees."""

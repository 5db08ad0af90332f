"""MONAI bundles and TorchScript models as stages of a cascade, read as data."""

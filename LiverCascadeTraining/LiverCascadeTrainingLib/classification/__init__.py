"""Whether a liver holds lesions: networks that see the liver through a soft or a binary mask, and their comparison."""

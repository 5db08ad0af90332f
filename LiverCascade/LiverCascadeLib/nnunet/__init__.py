"""Models of nnU-Net v2, run natively: its folders are read as data, its preprocessing and windows are the same."""

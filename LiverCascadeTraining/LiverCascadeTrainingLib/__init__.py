"""The headless companion: data sets, synthetic CT, training and evaluation."""

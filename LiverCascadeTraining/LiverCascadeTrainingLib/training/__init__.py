"""Training runs on Lightning: configuration, sources, the module, validation, and the folder that says everything."""

"""The panel of the module LiverCascadeTraining: it starts ``livercascade-train`` in a process and shows what comes."""

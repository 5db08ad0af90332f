"""The commands of ``livercascade-train``, one file each."""

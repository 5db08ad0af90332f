"""The commands of ``livercascade``: each file adds one to the parser and runs it."""

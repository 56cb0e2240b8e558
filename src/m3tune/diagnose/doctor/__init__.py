"""Rules over the artefacts of a run, a model folder or a machine: why it came out so, causes before symptoms."""

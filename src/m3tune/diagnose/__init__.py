"""Rules over artefacts: what is wrong with data, as findings with stable codes and a page each."""

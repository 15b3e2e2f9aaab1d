"""Who computes a call: choice, decision, plans, trials, checks and counts."""

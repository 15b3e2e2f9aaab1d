"""Whether a result is right: the criterion, comparisons with native, and their outcomes."""

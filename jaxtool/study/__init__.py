"""Many runs and what they mean together. Knows no loss and no plan."""

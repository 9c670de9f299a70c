"""One module per group of verbs; each function takes the checkout and the parsed arguments."""

"""Raw text to training text: filters, a quality classifier, near-duplicates, and the recipe that puts them together."""

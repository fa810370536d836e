"""What a text is: words, openers, near-duplicates, languages, and how it is shown."""

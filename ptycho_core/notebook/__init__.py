"""What a notebook and a console show of values: cards, figures, datasets, and a bar while something is worked on."""

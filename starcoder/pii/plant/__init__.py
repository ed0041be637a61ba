"""Examples to train and measure detectors with: people and secrets that nobody owns, planted in real code."""

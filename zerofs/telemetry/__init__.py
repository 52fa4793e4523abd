"""What zerofs says about itself: numbers and log lines. Never contents, names of files, passwords or keys."""

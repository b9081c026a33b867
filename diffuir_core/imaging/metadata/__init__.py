"""What a photo carries besides its pixels: found in each format, held in one form, written into each format."""

"""What a request cannot cost less than, with these parts."""

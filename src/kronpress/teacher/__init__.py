"""What a teacher says of text and of examples, kept on disk."""

"""Pool of the width."""

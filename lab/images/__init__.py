"""Images: fetched or built, verified, and kept in one cache."""

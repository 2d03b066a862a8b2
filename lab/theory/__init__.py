"""The theory: what is known and expected of a host before it is tried, and what observations say of that."""

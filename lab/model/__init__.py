"""The words of the domain, and what JSON documents are made of."""

"""What Invoke's tasks do: one folder a namespace."""

"""What several tasks do: choose, build, climb, collect evidence, start an emulator."""

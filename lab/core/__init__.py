"""What everything else stands on: processes, files, time, errors, locks, the door to the terminal."""
